"""Finding classes instead of listing them: modules are imported, subclasses walked."""

from __future__ import annotations

__all__ = ["descendants", "import_modules"]

import functools
import importlib
import pkgutil
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


@functools.cache
def import_modules(package: str) -> None:
    """Import every public module below a package, so that its classes are defined.

    Parameters
    ----------
    package : str
        Its full name. Modules whose own name begins with an underscore are left out.
    """
    path = importlib.import_module(package).__path__
    for module in pkgutil.walk_packages(path, f"{package}."):
        if not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)


def descendants(base: type[T]) -> Iterator[type[T]]:
    """Yield the subclasses of a class that are defined so far, and theirs, in that order."""
    for child in base.__subclasses__():
        yield child
        yield from descendants(child)
