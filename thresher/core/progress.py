"""A progress bar on the terminal, silent elsewhere."""

from __future__ import annotations

__all__ = ["progress_bar"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(steps: int, show: bool = True) -> Iterator[Callable[[str], None]]:
    """Show a bar while the context lasts.

    Parameters
    ----------
    steps : int
        How many steps there are.
    show : bool, default True
        Whether to show it at all; it appears on terminals only.

    Yields
    ------
    callable
        ``advance(text)`` marks a step as done and names it.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeElapsedColumn(),
        Remaining(),
        console=console,
        disable=not (show and console.is_terminal),
        transient=True,
    ) as progress:
        task = progress.add_task("starting", total=steps)
        yield lambda text: progress.update(task, advance=1, description=text)
