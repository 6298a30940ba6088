"""Which layouts there are: those of this package and those that users have defined."""

from __future__ import annotations

__all__ = ["known_layouts", "named_layout"]

import functools
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import OptionError, nearest
from .base import Layout


def known_layouts() -> dict[str, type[Layout]]:
    """Return every layout by name.

    Returns
    -------
    dict of str to type
        Those of this package and those that user code has defined so far. A class that was
        defined again, as in a notebook, takes the place of its predecessor.

    Raises
    ------
    OptionError
        If two different classes have one name.
    """
    _define_own()
    known: dict[str, type[Layout]] = {}
    for layout in _descendants(Layout):
        name = layout.__dict__.get("name")
        if name is None:
            continue
        other = known.setdefault(name, layout)
        if _place(other) != _place(layout):
            raise OptionError(
                f"two layouts are named {name!r}: {_place(other)} and {_place(layout)}; rename one"
            )
        known[name] = layout
    return known


def named_layout(name: str) -> type[Layout]:
    """Return the layout called `name`.

    Raises
    ------
    OptionError
        If there is none; the message suggests the nearest.
    """
    known = known_layouts()
    if name not in known:
        raise OptionError(f"there is no layout {name!r}; {nearest(name, known)}")
    return known[name]


@functools.cache
def _define_own() -> None:
    """Import the files of this package, each of which defines its layouts."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")


def _descendants(kind: type[Any]) -> Iterator[type[Layout]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


def _place(layout: type[Layout]) -> str:
    return f"{layout.__module__}.{layout.__qualname__}"
