"""The processes of a comparison: one after another, or several at a time through Ray."""

from __future__ import annotations

__all__ = ["check_parallel", "end_with_parent", "plugin_files", "run_processes"]

import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .core.card import entry_of, find
from .core.errors import OptionError
from .core.extras import naming_the_extra
from .core.options import check_whole
from .prune.comparison import Cell

_PLUGIN = "thresher_plugin_"
_Ended = Callable[[str, int], None]


def check_parallel(parallel: int) -> None:
    """Raise unless so many processes can run at a time.

    Raises
    ------
    OptionError
        If the number is below 1.
    MissingPackageError
        If Ray is needed and not installed.
    """
    check_whole("parallel", parallel)
    if parallel > 1:
        with naming_the_extra():
            importlib.import_module("ray")


def plugin_files(cells: Iterable[Cell]) -> list[str]:
    """Return the files that define methods of the user's own, for other processes to load.

    Raises
    ------
    OptionError
        If a method is defined where no other process can find it, such as in a notebook.
    """
    files = []
    for method in dict.fromkeys(cell.method for cell in cells):
        module = entry_of(find(method)).module
        if module == "__main__":
            raise OptionError(
                f"method {method!r} is defined in the running program, which other processes do "
                "not see; put it into a file, and load it with thresher.core.card.load_plugin or "
                "--plugin"
            )
        if module.startswith(_PLUGIN):
            files.append(str(Path(str(sys.modules[module].__file__)).resolve()))
    return files


def end_with_parent() -> None:
    """End this process when the one that started it ends, however that happens."""

    def wait() -> None:
        # Of the file itself: a buffer's lock would still be held while Python ends.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run_processes(
    arguments: Mapping[str, Sequence[str]],
    plugins: Sequence[str],
    parallel: int,
    show: bool,
    ended: _Ended,
) -> None:
    """Run a process for every name, and wait for all.

    Parameters
    ----------
    arguments : mapping of str to sequence of str
        Of the hidden command ``thresher compare-cell``.
    plugins : sequence of str
        Files to load first.
    parallel : int
        How many at a time; more than one with Ray.
    show : bool
        Whether their progress goes to this process's terminal, where there is one at a time.
    ended : callable
        ``ended(name, status)`` is called when one has ended.
    """
    before = [text for file in plugins for text in ("--plugin", file)]
    start = [sys.executable, "-m", "thresher", *before, "compare-cell"]
    commands = {name: [*start, *given] for name, given in arguments.items()}
    if parallel > 1:
        _run_with_ray(commands, parallel, ended)
        return
    for name, command in commands.items():
        ended(name, _run(command, show))


def _run(command: Sequence[str], show: bool) -> int:
    """Run a process that ends when this one does; return its exit status."""
    quiet = subprocess.DEVNULL
    # In a session of its own, so that Ctrl-C is this process's to handle; what it reads from tells
    # it that this one has ended, by `kill -9` too.
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=quiet,
        stderr=None if show else quiet,
        start_new_session=True,
    )
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _run_with_ray(commands: Mapping[str, Sequence[str]], parallel: int, ended: _Ended) -> None:
    ray: Any = importlib.import_module("ray")
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        run = ray.remote(max_retries=0, **_share(ray.cluster_resources(), parallel))(_run)
        running: dict[Any, str] = {}
        waiting = list(commands)
        while waiting or running:
            while waiting and len(running) < parallel:
                name = waiting.pop(0)
                running[run.remote(commands[name], False)] = name
            (done,), _ = ray.wait(list(running), num_returns=1)
            try:
                status = ray.get(done)
            except ray.exceptions.RayError:
                # It ends a process that waits for ours, where memory is short or a machine is lost.
                status = -signal.SIGKILL
            ended(running.pop(done), status)
    finally:
        if ours:
            ray.shutdown()


def _share(resources: Mapping[str, float], parallel: int) -> dict[str, float]:
    """Return what of the processors and devices each of several processes is to have."""
    processors = resources.get("CPU", 1.0) / parallel
    devices = resources.get("GPU", 0.0) / parallel
    shares = {"num_cpus": processors, "num_gpus": devices}
    # Ray takes whole numbers or parts of one.
    return {name: share if share < 1 else float(int(share)) for name, share in shares.items()}
