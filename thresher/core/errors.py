"""Errors that say what was wrong, where, and what to do."""

from __future__ import annotations

__all__ = [
    "AssetError",
    "CheckpointError",
    "DataError",
    "LayerError",
    "MissingPackageError",
    "NumericalError",
    "OptionError",
    "ThresherError",
    "nearest",
    "unknown",
]

import difflib
import re
from collections.abc import Iterable, Mapping


class ThresherError(Exception):
    """Base class of every error that Thresher raises about its input."""


class AssetError(ThresherError, OSError):
    """A model or data set that a package registry holds could not be fetched or opened."""


class OptionError(ThresherError, ValueError):
    """An option has a value outside its range, or an unknown name."""


class DataError(ThresherError, ValueError):
    """Calibration or evaluation data cannot be used."""


class LayerError(ThresherError, ValueError):
    """A layer does not fit what was asked of it."""


class NumericalError(ThresherError, ArithmeticError):
    """Weights or activations hold NaN or infinite values."""


class MissingPackageError(ThresherError, ModuleNotFoundError):
    """A package is not installed that this part of the library needs."""


class CheckpointError(ThresherError, OSError):
    """A model folder is missing, truncated, corrupted or of a refused format."""


def nearest(name: str, known: Iterable[str], called: Mapping[str, str] | None = None) -> str:
    """Return a hint naming the known names closest to `name`.

    Parameters
    ----------
    name : str
        What the user wrote.
    known : iterable of str
        The names that would have been accepted.
    called : mapping of str to str, optional
        What else some of them are called elsewhere.

    Returns
    -------
    str
        ``"did you mean 'wanda'?"``, or the whole list when nothing is close.
    """
    names = sorted(known)
    texts = dict(called or {}) | {each: each for each in names}
    same = [found for text, found in texts.items() if _plain(text) == _plain(name) != ""]
    close = same or [texts[each] for each in difflib.get_close_matches(name.lower(), texts, n=1)]
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(names)


def _plain(text: str) -> str:
    """Return a name's letters and digits, without what is spelled in several ways."""
    return re.sub(r"[\W_]", "", text.lower())


def unknown(
    kind: str,
    name: str,
    known: Iterable[str],
    otherwise: str = "",
    called: Mapping[str, str] | None = None,
) -> OptionError:
    """Return the error that there is nothing called `name`.

    Parameters
    ----------
    kind : str
        What was looked for, such as ``"budget"``.
    name : str
        What the user wrote.
    known : iterable of str
        The names that would have been accepted.
    otherwise : str, optional
        Said where none of them is near, instead of the whole list.
    called : mapping of str to str, optional
        See :func:`nearest`.
    """
    hint = nearest(name, known, called)
    if otherwise and not hint.startswith("did you mean"):
        hint = otherwise
    return OptionError(f"there is no {kind} {name!r}; {hint}")
