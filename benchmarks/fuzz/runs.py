"""Many damaged folders, each judged in a process that a crash, a hang or a bomb can only end."""

from __future__ import annotations

import os
import resource
import select
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from .folders import Draft, damaged, whole_folders
from .judge import judge

SECONDS = 20
MEMORY = 1 << 30
_SHOWN = 20


def run(inputs: int, seed: int, first: int = 0) -> dict[str, object]:
    """Return how many inputs were refused, accepted, and anything else, with examples.

    Parameters
    ----------
    inputs : int
        How many, from number `first` on.
    seed : int
        Of all damage; a number and a seed name one input.
    """
    counts: Counter[str] = Counter()
    others: list[str] = []
    drafts, number = whole_folders(), first
    started = time.perf_counter()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        while number < first + inputs:
            number = _spell(drafts, number, first + inputs, seed, Path(folder), counts, others)
    return {
        "inputs": inputs,
        "seed": seed,
        "refused": counts["refused"],
        "accepted": counts["accepted"],
        "anything_else": sum(counts.values()) - counts["refused"] - counts["accepted"],
        "examples": others[:_SHOWN],
        "seconds": round(time.perf_counter() - started, 1),
    }


def _spell(
    drafts: list[Draft],
    number: int,
    end: int,
    seed: int,
    folder: Path,
    counts: Counter[str],
    others: list[str],
) -> int:
    """Judge inputs in one process until all are done or it ends; return the next number."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            _work(drafts, number, end, seed, folder, writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    for line in _lines_in_time(reading, child):
        if line not in ("refused", "accepted"):
            others.append(f"{number}: {line}")
            line = "other"
        counts[line] += 1
        number += 1
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if number < end:
        how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else status
        others.append(f"{number}: the process ended with {how}")
        counts["ended"] += 1
        number += 1
    return number


def _lines_in_time(reading: int, child: int) -> Iterator[str]:
    """Yield lines as they come, ending the process when one takes too long."""
    pending = b""
    while True:
        if not select.select([reading], [], [], SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
        found = os.read(reading, 1 << 16)
        if not found:
            return
        *lines, pending = (pending + found).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def _work(
    drafts: list[Draft], number: int, end: int, seed: int, folder: Path, writing: int
) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for at in range(number, end):
        verdict = _verdict(drafts, at, seed, folder)
        os.write(writing, (verdict.replace("\n", " ")[:500] + "\n").encode(errors="replace"))


def _verdict(drafts: list[Draft], number: int, seed: int, folder: Path) -> str:
    for file in folder.iterdir():
        file.unlink()
    damaged(drafts, number, seed).write(folder)
    try:
        return judge(folder)
    except BaseException as error:  # a raw exception is what is looked for
        return f"{type(error).__name__}: {error}"
