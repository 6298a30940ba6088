"""Dual points of penalised problems, from which their gaps follow."""

from __future__ import annotations

__all__ = ["duality_gap", "feasible_dual"]

import numpy as np

from ..datafits import Datafit


def feasible_dual(
    pull: np.ndarray, strength: np.ndarray | float, ridge: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Make the slope of a loss feasible for the dual of an L1-like penalty.

    Parameters
    ----------
    pull : array of shape (..., blocks)
        Norms of the gradient, block by block.
    strength : float or array that broadcasts against `pull`
        Factors of the norms, positive.
    ridge : array of shape (...)
        Factor of half the squared norm.

    Returns
    -------
    shrink : array of shape (...)
        What the slope is to be divided by; one where there is a ridge, as that makes every
        slope feasible,
    price : array of shape (...)
        at this price: what the conjugate of the penalty adds to the gap.
    """
    shrink = np.where(ridge > 0, 1.0, np.max(pull / strength, axis=-1, initial=1.0))
    if not np.any(ridge):
        return shrink, np.zeros_like(shrink)
    excess = np.maximum(pull - strength, 0)
    return shrink, np.sum(excess**2, axis=-1) / np.where(ridge > 0, 2 * ridge, np.inf)


def duality_gap(
    datafit: Datafit,
    y: np.ndarray,
    slope: np.ndarray,
    weight: np.ndarray,
    objective: float,
    shrink: np.ndarray,
    price: np.ndarray,
) -> float:
    """Return the gap at the dual point that the slope of the loss gives, made feasible.

    Parameters
    ----------
    datafit : Datafit
        A loss with a conjugate.
    y : array of shape (n,) or (n, outputs)
        Target.
    slope : array of the shape of `y`
        Derivative of the loss with respect to each prediction.
    weight : array of shape (n,)
        Sample weights.
    objective : float
        Loss plus penalty.
    shrink, price
        From :func:`feasible_dual`, for this problem.
    """
    conjugate = datafit.conjugate(y, slope / shrink, weight)
    assert conjugate is not None  # otherwise the gap is not asked for
    # Never negative but by rounding, and then wrong by as much.
    return abs(objective + conjugate + float(price))
