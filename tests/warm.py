"""Python processes that start with torch and transformers loaded, and with nothing of Thresher.

Loading them takes longer than most of what a test does in a process of its own. Tests of what is
loaded, when, and how long that takes start Python itself.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

LOADED = ["torch", "transformers", "transformers.models.llama.modeling_llama"]


def _python(arguments: list[str], environment: dict[str, str], files: list[str]) -> None:
    """Do in this process what ``python ARGUMENTS`` does."""
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY), descriptor)
    os.dup2(os.pipe()[0], 0)  # nothing to read, and no end of it
    os.environ.clear()
    os.environ.update(environment)
    # A shell that runs the tests in the background has its children ignore the signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    option, what, *rest = arguments
    sys.argv = [option, *rest]
    if option == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


class Warm:
    """A process like ``subprocess.Popen([sys.executable, *arguments])``.

    Attributes
    ----------
    pid
        Its number.
    """

    def __init__(self, arguments: Sequence[object]):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        for file in self._files:
            file.touch()
        given = [str(each) for each in arguments], dict(os.environ), list(map(str, self._files))
        self._process = context.Process(target=_python, args=given)
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Return how it ended and what it printed."""
        self._process.join()
        printed = [file.read_text() for file in self._files]
        return subprocess.CompletedProcess([], self._process.exitcode, *printed)


def run(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` to its end; AssertionError with its errors where it fails."""
    done = Warm(arguments).wait()
    assert not check or done.returncode == 0, done.stderr
    return done
