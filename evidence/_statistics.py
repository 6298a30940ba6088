"""What differences between draws say; without torch, which the linear experiments do without."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

#: Standard errors that a difference must exceed to count.
ERRORS = 2.0


def lower(values: np.ndarray, best_of: int = 1) -> np.ndarray:
    """Return the mean over draws, less two standard errors.

    Parameters
    ----------
    values : array of shape (..., draws)
        One draw alone shows no noise, so that nothing exceeds it: the answer is NaN.
    best_of : int, default 1
        How many such means the largest is taken of. The errors to subtract grow so that it
        exceeds zero by chance no more often than a single mean does (Bonferroni).

    Returns
    -------
    array of shape (...)
    """
    values = np.asarray(values, dtype=float)
    draws = values.shape[-1]
    if draws < 2:
        return np.full(values.shape[:-1], np.nan)
    errors = stats.t.isf(stats.t.sf(ERRORS, draws - 1) / best_of, draws - 1)
    return values.mean(-1) - errors * values.std(-1, ddof=1) / math.sqrt(draws)


def least_ratio(ratios: np.ndarray, best_of: int = 1) -> np.ndarray:
    """Return the geometric mean of ratios over draws, two standard errors below."""
    return np.exp(lower(np.log(ratios), best_of))


def powers(sizes: Sequence[float], values: np.ndarray) -> np.ndarray:
    """Return the power of the sizes with which values of shape (sizes, draws) go, by draw."""
    return np.asarray(np.polyfit(np.log(sizes), np.log(values), 1)[0])
