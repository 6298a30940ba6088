"""How well predictions do: explained deviance, and concordance for survival times."""

from __future__ import annotations

__all__ = ["concordance", "explained_deviance"]

from typing import Any

import numpy as np

from ...solve.datafits import Datafit
from ...solve.penalties import L1
from ...solve.solvers import Problem


def explained_deviance(
    datafit: Datafit, y: np.ndarray, prediction: np.ndarray, sample_weight: Any = None
) -> float:
    """Return the share of the deviance that predictions explain (D squared).

    Parameters
    ----------
    datafit : Datafit
        The loss; of squares, the result is R squared.
    y : array of shape (n,) or (n, outputs)
        Target.
    prediction : array of the same shape
        Linear predictions.
    sample_weight : array of shape (n,), optional
        Relative weights.

    Returns
    -------
    float
        1 at best, 0 for the best constant, below 0 for what is worse. NaN where the best
        constant is perfect, unless the predictions are too.

    References
    ----------
    Hastie, Tibshirani and Wainwright, Statistical learning with sparsity (2015), equation 3.11.
    """
    penalty = L1()
    problem = Problem.build(np.zeros((len(y), 1)), y, datafit, penalty, sample_weight)
    least = datafit.saturated(problem.y, problem.weight)
    reached = datafit.value(problem.y, prediction, problem.weight) - least
    constant = datafit.value(problem.y, problem.null_prediction, problem.weight) - least
    if constant <= 0:
        return 1.0 if reached <= 0 else np.nan
    return 1.0 - reached / constant


def concordance(y: np.ndarray, risk: np.ndarray, sample_weight: Any = None) -> float:
    """Return how often the sample of higher risk has its event first (Harrell's C).

    Parameters
    ----------
    y : array of shape (n,)
        Times, positive where the event was seen and negative where the sample was censored.
    risk : array of shape (n,)
        Log hazard ratios.
    sample_weight : array of shape (n,), optional
        A pair weighs the product of its samples' weights.

    Returns
    -------
    float
        Share of the comparable pairs in the right order, ties of risk counting half; 0.5 for
        no better than chance, NaN without comparable pairs.

    References
    ----------
    Harrell, Califf, Pryor, Lee and Rosati, Evaluating the yield of medical tests (1982).
    """
    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    time, seen = np.abs(y), y > 0
    right = total = 0.0
    for i in np.flatnonzero(seen & (weight > 0)):
        later = (time > time[i]) | ((time == time[i]) & ~seen)
        pair = weight[i] * weight[later]
        right += float(pair @ ((risk[i] > risk[later]) + 0.5 * (risk[i] == risk[later])))
        total += float(pair.sum())
    return right / total if total > 0 else np.nan
