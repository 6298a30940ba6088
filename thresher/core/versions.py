"""Say so where a library is newer than the one that Thresher is tested with."""

from __future__ import annotations

__all__ = ["watch"]

import warnings
from types import ModuleType

import wrapt

from .tested import TESTED


def watch() -> None:
    """Warn, as a library of ``TESTED`` is imported, if it is newer than there.

    Nothing is imported for it. One that is loaded already is looked at now.

    Warns
    -----
    UserWarning
        Once for each newer library, with its name, its version and the tested one.
    """
    for name in TESTED:
        wrapt.register_post_import_hook(_compare, name)


def _compare(module: ModuleType) -> None:
    from packaging.version import InvalidVersion, Version

    name, tested = module.__name__, TESTED[module.__name__]
    found = getattr(module, "__version__", "of no version")
    try:
        # What follows a plus sign names a build: 2.13.0+cpu is no newer than 2.13.0.
        newer = Version(Version(found).public) > Version(tested)
    except InvalidVersion:
        newer = True
    if newer:
        warnings.warn(
            f"{name} {found} is newer than {tested}, the newest that Thresher is tested with; "
            f"if anything looks wrong, try {name} {tested}",
            stacklevel=1,
        )
