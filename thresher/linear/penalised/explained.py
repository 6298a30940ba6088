"""How well predictions do, by the score of their loss."""

from __future__ import annotations

__all__ = ["explained_deviance"]

from typing import Any

import numpy as np

from ...solve.datafits import Datafit
from ...solve.penalties import L1
from ...solve.problem import Problem, relative_weights


def explained_deviance(
    datafit: Datafit, y: np.ndarray, prediction: np.ndarray, sample_weight: Any = None
) -> float:
    """Return the score of a loss, by default the share of the deviance that is explained.

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
        See :meth:`~thresher.solve.datafits.base.Datafit.score`.
    """
    datafit.check_target(y)
    weight = relative_weights(sample_weight, len(y))
    loss, null = datafit.in_units(y, weight), None
    # A target that an endless constant fits has no best one, but a perfect one.
    if loss.degeneracy(y, weight, True) is None:
        null = Problem.build(np.zeros((len(y), 1)), y, loss, L1(), sample_weight).null_prediction
    return loss.exact.score(y, prediction, weight, null)
