"""How far to go: the whole way, or the first half, quarter and so on that lowers an objective."""

from __future__ import annotations

__all__ = ["falls", "search"]

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

_SLACK = 4 * float(np.finfo(float).eps)


def falls(reached: Any, current: Any, whole: bool) -> Any:
    """Tell whether objectives fall.

    Parameters
    ----------
    reached : float or array
        Objectives where the steps end.
    current : float or array
        Objectives where they start.
    whole : bool
        Whether the steps go the whole way. Such a step may keep the objective to rounding: at the
        end of the digits the objective cannot tell progress, the conditions of optimality still
        can.

    Returns
    -------
    bool or array of bool
    """
    if not whole:
        return reached < current
    return reached <= current + _SLACK * np.maximum(np.abs(current), 1e-300)


def search(
    reach: Callable[[float], tuple[float, T]],
    current: float,
    longest: float = 1.0,
    trials: int = 30,
) -> tuple[float, T] | None:
    """Halve a step until the objective falls.

    Parameters
    ----------
    reach : callable
        Returns the objective at the end of a step of a length, and what else is of use there.
    current : float
        The objective at its start.
    longest : float, default 1
        The whole step.
    trials : int, default 30
        How many lengths are tried.

    Returns
    -------
    tuple or None
        What `reach` returned for the step that is taken; None where none lowers the objective.
    """
    step = longest
    for _ in range(trials):
        found = reach(step)
        if falls(found[0], current, step == longest):
            return found
        step /= 2
    return None
