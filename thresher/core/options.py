"""Checks of options that many classes take."""

from __future__ import annotations

__all__ = ["check_whole"]

import numbers
from typing import Any

from .errors import OptionError


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
