"""Checks of options that many classes take."""

from __future__ import annotations

__all__ = ["check_boolean", "check_count", "check_number", "check_whole"]

import numbers
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


def check_number(name: str, value: Any, least: float = 0.0, most: float = float("inf")) -> None:
    """Raise unless an option is a number within its range.

    Parameters
    ----------
    name : str
        What the option is called.
    value : object
        What was given. Neither booleans nor NaN are numbers here; NumPy's are.
    least, most : float, default 0 and infinity
        Ends of the range, which belong to it.

    Raises
    ------
    OptionError
        Naming the option, the value and the range.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not least <= value <= most:
        span = f"of at least {least:g}" if most == float("inf") else f"from {least:g} to {most:g}"
        raise OptionError(f"{name} must be a number {span}, got {value!r}")
