"""Where a solver stands, and what follows from it, each quantity computed once."""

from __future__ import annotations

__all__ = ["Fit", "Point"]

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..problem import Problem


@dataclass(frozen=True)
class Fit:
    """Predictions of the samples, and the loss there.

    Parameters
    ----------
    problem : Problem
        Whose loss, target and sample weights are meant.
    prediction : array of shape (n,) or (n, outputs)
        ``X w + intercept``, in double precision.
    intercept : array of shape () or (outputs,)
        The constant in it.
    """

    problem: Problem
    prediction: np.ndarray
    intercept: np.ndarray

    @cached_property
    def loss(self) -> float:
        """The loss."""
        return self.problem.datafit.value(self.problem.y, self.prediction, self.problem.weight)

    @cached_property
    def slope(self) -> np.ndarray:
        """Derivative of the loss with respect to each prediction."""
        return self.problem.datafit.gradient(self.problem.y, self.prediction, self.problem.weight)

    @cached_property
    def curvature(self) -> np.ndarray:
        """Second derivative for each prediction, or its bound, of shape (n,)."""
        return self.problem.datafit.curvature(self.problem.y, self.prediction, self.problem.weight)


@dataclass(frozen=True)
class Point:
    """Coefficients of a problem, or of some of its columns, and their fit.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    coef : array of shape (p,) or (p, outputs)
        Coefficients.
    fit : Fit
        What they predict.
    """

    problem: Problem
    coef: np.ndarray
    fit: Fit

    @cached_property
    def gradient(self) -> np.ndarray:
        """Gradient of the loss with respect to the coefficients."""
        return self.problem.design.correlate(self.fit.slope)

    @cached_property
    def objective(self) -> float:
        """Loss plus penalty, summed in double precision so that the last steps show."""
        return self.fit.loss + self.problem.penalty.value(self.coef.astype(float, copy=False))

    def with_best_intercept(self) -> Point:
        """Return the point whose intercept fits best."""
        if not self.problem.intercept:
            return self
        offset = self.fit.prediction - self.fit.intercept
        moved = self.problem.best_intercept(offset, self.fit.intercept)
        if np.array_equal(moved, self.fit.intercept):
            return self
        return Point(self.problem, self.coef, Fit(self.problem, offset + moved, moved))

    @cached_property
    def distance(self) -> np.ndarray:
        """Distance of every coefficient or block from stationarity."""
        return self.problem.penalty.subdifferential_distance(self.coef, self.gradient)
