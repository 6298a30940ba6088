"""Checks of options that many classes take."""

from __future__ import annotations

__all__ = [
    "check_boolean",
    "check_choice",
    "check_count",
    "check_number",
    "check_whole",
    "density_of",
    "share_hint",
]

import math
import numbers
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import OptionError


def check_boolean(name: str, value: Any) -> None:
    """Raise unless an option is True or False.

    Parameters
    ----------
    name : str
        What the option is called.
    value : object
        What was given. NumPy's booleans are accepted; text and numbers are not.

    Raises
    ------
    OptionError
        Naming the option and the value.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise OptionError(f"{name} must be True or False, got {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless an option is one of a few words.

    Parameters
    ----------
    name : str
        The option, for the message.
    value : Any
        What the user passed.
    choices : sequence of str
        What it may be.

    Raises
    ------
    OptionError
        Naming the value and the choices.
    """
    if not isinstance(value, str) or value not in choices:
        known = " or ".join(repr(choice) for choice in choices)
        raise OptionError(f"{name}={value!r} is not known; it is {known}")


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Raise unless an option is a whole number that is large enough.

    Parameters
    ----------
    name : str
        What the option is called.
    value : object
        What was given. Booleans are not numbers here; NumPy's integers are.
    least : int, default 1
        Smallest value that is accepted.

    Raises
    ------
    OptionError
        Naming the option, the value and the range.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_count(name: str, value: Any, available: int, what: str = "columns") -> None:
    """Raise unless an option is a whole number from 1 to how many there are to choose from.

    Parameters
    ----------
    name : str
        What the option is called.
    value : object
        What was given.
    available : int
        Largest number that is accepted.
    what : str, default "columns"
        What is chosen.

    Raises
    ------
    OptionError
        Naming the option, the value and the range.
    """
    check_whole(name, value)
    if value > available:
        raise OptionError(f"cannot choose {value} of {available} {what}; ask for 1 to {available}")


def check_number(
    name: str,
    value: Any,
    least: float = 0.0,
    most: float = math.inf,
    *,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raise unless an option is a finite number within its range.

    Parameters
    ----------
    name : str
        What the option is called.
    value : object
        What was given. Neither booleans nor NaN are numbers here; NumPy's are.
    least, most : float, default 0 and infinity
        Ends of the range, which belong to it.
    above, below : float, optional
        Ends that do not belong to it, instead of `least` and `most`.

    Raises
    ------
    OptionError
        Naming the option, the value and the range.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    inside = real and _is_finite(value)
    inside = inside and (value >= least if above is None else value > above)
    inside = inside and (value <= most if below is None else value < below)
    if not inside:
        span = _span(least, most, above, below)
        raise OptionError(f"{name} must be a {span}, got {value!r}")


def share_hint(value: Any) -> str:
    """Return the share that was probably meant where a percentage was given, as a hint.

    Parameters
    ----------
    value : Any
        What was given as a share, such as 50 or ``"50%"``.

    Returns
    -------
    str
        ``"; did you mean 0.5?"``, or nothing.
    """
    percent = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%?", str(value))
    meant = float(percent[1]) / 100 if percent else 0.0
    return f"; did you mean {meant:g}?" if 0.02 <= meant < 1 else ""


def density_of(density: float | None, sparsity: float | None) -> float | None:
    """Return the share to keep, of which either that or the share to remove may be given.

    Parameters
    ----------
    density : float, optional
        Share of the weights to keep.
    sparsity : float, optional
        Share to remove, in [0, 1): one less the density.

    Raises
    ------
    OptionError
        If both are given, or `sparsity` is out of range.
    """
    if sparsity is None:
        return density
    if density is not None:
        raise OptionError(
            f"density {density} and sparsity {sparsity} say the same thing twice: density is the "
            "share of weights to keep, sparsity the share to remove; drop one of the two"
        )
    try:
        check_number("sparsity, the share of weights to remove,", sparsity, below=1)
    except OptionError as error:
        raise OptionError(f"{error}{share_hint(sparsity)}") from None
    # 1 - 0.7 is 0.30000000000000004, which records would show.
    return round(1 - sparsity, 12)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of doubles
        return False


def _span(least: float, most: float, above: float | None, below: float | None) -> str:
    if above is None and below is None and most < math.inf:
        return f"number from {least:g} to {most:g}"
    start = f"of at least {least:g}" if above is None else f"above {above:g}"
    if below is None and most == math.inf:
        return f"finite number {start}"
    return f"number {start} and " + (f"at most {most:g}" if below is None else f"below {below:g}")
