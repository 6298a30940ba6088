"""What to install where a part of the library needs a package that is not there."""

from __future__ import annotations

__all__ = ["naming_the_extra"]

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from .errors import MissingPackageError


@contextmanager
def naming_the_extra() -> Iterator[None]:
    """Have an import that fails while the context lasts say what to install.

    Raises
    ------
    MissingPackageError
        With the command that installs the module, where an extra of Thresher brings it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        extra = _extra_of((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise MissingPackageError(
            f"this part of Thresher needs {error.name}, which is not installed; "
            f"pip install 'thresher[{extra}]'",
            name=error.name,
        ) from error


def _extra_of(package: str) -> str | None:
    """Return the first extra that brings a package; modules of ours are in none."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    declared = metadata.metadata("thresher")
    needed = [Requirement(line) for line in declared.get_all("Requires-Dist") or ()]
    for extra in declared.get_all("Provides-Extra") or ():
        for each in needed:
            marked = each.marker is not None and each.marker.evaluate({"extra": extra})
            # Modules are spelled with underscores, and many packages with hyphens.
            if canonicalize_name(each.name) == canonicalize_name(package) and marked:
                return str(extra)
    return None
