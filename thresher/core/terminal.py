"""What a command says: status lines and tables, or JSON; the user chooses how much."""

from __future__ import annotations

__all__ = ["Manner", "done", "manner", "own_manner", "say", "show"]

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass
class Manner:
    """How a command speaks.

    Parameters
    ----------
    quiet : bool, default False
        Results, warnings and errors alone: neither status lines nor progress.
    verbose : bool, default False
        Also where errors come from.
    json : bool, default False
        Results as JSON on the standard output, and nothing else there.
    typed : str, default ""
        The command as it can be typed again.
    phase : str, default ""
        Which phase of how many runs, such as 2/3; nothing where there is one, or none knows.
    """

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    typed: str = ""
    phase: str = ""


_current = Manner()


def manner() -> Manner:
    """Return how the command that runs now speaks; what is set there holds until it ends."""
    return _current


@contextmanager
def own_manner() -> Iterator[Manner]:
    """Have a command speak in a manner of its own while the context lasts."""
    global _current
    before, _current = _current, Manner()
    try:
        yield _current
    finally:
        _current = before


def say(text: str) -> None:
    """Print a line on what is being done, unless results alone are wanted."""
    if not (_current.quiet or _current.json):
        _print(text, markup=False, highlight=False)


def show(data: Any, *tables: RenderableType) -> None:
    """Print a result.

    Parameters
    ----------
    data : Any
        The result as JSON can hold it; paths and the like become text.
    *tables
        The same for people.
    """
    if _current.json:
        print(json.dumps(data, indent=2, default=str))
        return
    for table in tables:
        _print(table)


def done(text: str, **data: Any) -> None:
    """Say what a command has done whose result is elsewhere, in a file or at a service.

    Parameters
    ----------
    text : str
        For people, unless they want results alone.
    **data
        The same as JSON can hold it; paths become text.
    """
    if _current.json:
        show(data)
    else:
        say(text)


def _print(what: Any, **options: Any) -> None:
    from rich.console import Console

    # n:m:g is the name of a layout, and no emoji.
    Console(emoji=False).print(what, **options)
