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
from collections.abc import Iterable


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


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint naming the known names closest to `name`.

    Parameters
    ----------
    name : str
        What the user wrote.
    known : iterable of str
        The names that would have been accepted.

    Returns
    -------
    str
        ``"did you mean 'wanda'?"``, or the whole list when nothing is close.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(names)


def unknown(kind: str, name: str, known: Iterable[str], otherwise: str = "") -> OptionError:
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
    """
    hint = nearest(name, known)
    if otherwise and not hint.startswith("did you mean"):
        hint = otherwise
    return OptionError(f"there is no {kind} {name!r}; {hint}")
