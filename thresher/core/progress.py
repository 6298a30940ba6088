"""Progress on the terminal: a bar, or a line for every step where output goes to a file."""

from __future__ import annotations

__all__ = ["progress_bar"]

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .terminal import manner


@contextmanager
def progress_bar(
    steps: int, show: bool = True, lines: bool = False
) -> Iterator[Callable[..., None]]:
    """Show on the standard error stream how far a work of several steps is.

    Where the work is one phase of a command that has several, it is said which.

    Parameters
    ----------
    steps : int
        How many steps there are.
    show : bool, default True
        Whether to show it at all, where the user has not asked for results alone.
    lines : bool, default False
        Whether to write a line for every step where there is no terminal to show a bar on.

    Yields
    ------
    callable
        ``advance(text, many=1)`` marks a step, or several at once, as done and names the last.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    show = show and not manner().quiet
    phase = f"{manner().phase} " if manner().phase else ""
    console = Console(stderr=True)
    if show and lines and not console.is_terminal:
        yield _Lines(steps, phase)
        return
    columns = (TextColumn(phase + "{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeElapsedColumn(),
        Remaining(),
        console=console,
        disable=not (show and console.is_terminal),
        transient=True,
    ) as progress:
        task = progress.add_task("starting", total=steps)
        yield lambda text, many=1: progress.update(task, advance=many, description=text)


class _Lines:
    """Writes a line when a step ends, with the time it has all taken and may take yet."""

    def __init__(self, steps: int, phase: str) -> None:
        self._steps, self._phase = steps, phase
        self._done = 0
        self._start = time.monotonic()

    def __call__(self, text: str, many: int = 1) -> None:
        self._done += many
        elapsed = time.monotonic() - self._start
        left = elapsed / self._done * max(0, self._steps - self._done)
        print(
            f"{self._phase}[{self._done}/{self._steps}] {text}, {_minutes(elapsed)} elapsed, "
            f"about {_minutes(left)} to go",
            file=sys.stderr,
            flush=True,
        )


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
