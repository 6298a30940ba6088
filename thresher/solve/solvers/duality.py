"""Duality gaps: how far an objective can be above the least, by the slope of its loss."""

from __future__ import annotations

__all__ = ["DualityGap", "duality_gap", "gradient_rounding"]

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from ..datafits import Datafit
from ..problem import Problem
from .point import Point

# With more directions that the penalty leaves free, the projection would cost as much as the fit.
_MOST_FREE = 100
# What is left of a slope along a free direction, relative to its terms, that is rounding.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class DualityGap:
    """The gap of a problem, at the dual point that the slope of the loss gives.

    The slope is made orthogonal to what is not penalised (the constant, columns without a weight,
    the mean of a total variation) and divided by what makes it feasible for the conjugates. It is
    known where the datafit has a conjugate, the penalty says what is feasible
    (:meth:`~thresher.solve.penalties.base.Penalty.feasible`), and at most a hundred directions
    are free. It is not for:

    - Cox's partial likelihood, which couples the samples and has no conjugate in closed form;
    - a constraint of sign without a penalty beside it: ``NonNegative``, and ``L1`` with
      ``positive=True`` and a zero weight, or total variation and Haar wavelets with
      ``positive=True``. A feasible slope then has the right sign on all columns, which no factor
      gives it;
    - a strength of zero, or so small that the rounding of a gradient alone exceeds it, and
      penalties that are not convex.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    free : sparse array of shape (p, count)
        Directions in which the penalty is constant.
    """

    problem: Problem
    free: sparse.csc_array

    @classmethod
    def of(cls, problem: Problem) -> DualityGap | None:
        """Return the gap of a problem, None where it is not known."""
        if not problem.datafit.has_conjugate or not problem.penalty.convex:
            return None
        feasible = problem.penalty.feasible(
            np.full(problem.coef_shape, -gradient_rounding(problem))
        )
        if feasible is None or feasible.shrink > 1:
            return None
        free = problem.penalty.free_directions(problem.coef_shape)
        return cls(problem, free) if free.shape[1] <= _MOST_FREE else None

    @cached_property
    def scale(self) -> float:
        """What the tolerance is relative to: the loss of the best constant."""
        problem = self.problem
        return abs(problem.datafit.value(problem.y, problem.null_prediction, problem.weight))

    def tolerance(self, tol: float) -> float:
        """Return the gap that is asked for: not below the rounding of its own terms."""
        epsilon = float(np.finfo(self.problem.design.dtype).eps)
        floor = 0.0
        if self.problem.datafit.quadratic:
            floor = 16 * (epsilon * float(np.max(np.abs(self.problem.y), initial=0.0))) ** 2
        return max(max(tol, 8 * epsilon) * self.scale, floor)

    def at(self, point: Point) -> float:
        """Return the gap; infinite where the slope cannot be made feasible.

        Parameters
        ----------
        point : Point
            Of this problem. Its intercept should be near the best one.
        """
        problem, slope = self.problem, point.fit.slope
        projected = self._projected(point)
        gauge = problem.datafit.dual_gauge(projected, problem.weight)
        gradient = point.gradient if projected is slope else problem.design.correlate(projected)
        feasible = problem.penalty.feasible(gradient / gauge)
        assert feasible is not None  # otherwise the gap is not known
        shrink = gauge * feasible.shrink
        return duality_gap(
            problem.datafit, problem.y, projected, problem.weight, point.objective, shrink,
            feasible.price,
        )  # fmt: skip

    def _projected(self, point: Point) -> np.ndarray:
        """Return the slope, made orthogonal to the predictions of the free directions.

        In the metric of the curvature, so that samples near the ends of the conjugate's domain,
        which have little of it, hardly move.
        """
        problem, slope = self.problem, point.fit.slope
        directions = self._directions
        left = np.abs(directions.T @ slope)
        if np.all(left <= _ROUNDING * (np.abs(directions).T @ np.abs(slope))):
            return slope
        bend = point.fit.curvature
        bend = np.where(np.isfinite(bend), bend, problem.weight)
        bend = np.where(problem.weight > 0, np.maximum(bend, 1e-8 * np.max(bend)), 0.0)
        root = np.sqrt(bend)
        shaped = root if slope.ndim == 1 else root[:, None]
        scaled = np.divide(slope, shaped, where=shaped > 0, out=np.zeros_like(slope))
        basis = root[:, None] * directions
        basis = basis / np.maximum(np.linalg.norm(basis, axis=0), 1e-300)
        return shaped * (scaled - basis @ np.linalg.lstsq(basis, scaled, rcond=None)[0])

    @cached_property
    def _directions(self) -> np.ndarray:
        """What the constant and the free directions predict, of shape (n, count)."""
        problem = self.problem
        constant = np.ones((len(problem.y), int(problem.intercept)))
        if not self.free.shape[1]:  # no look at the design
            return constant
        free = problem.design.matrix @ self.free
        free = free.toarray() if sparse.issparse(free) else np.asarray(free)
        return np.hstack([constant, free.astype(float)])


def gradient_rounding(problem: Problem) -> float:
    """Return about the rounding of a gradient, bounded without a pass over the design."""
    slope = problem.datafit.gradient(problem.y, problem.null_prediction, problem.weight)
    length = float(np.sqrt(np.max(problem.moments[1], initial=0.0)))
    return 32 * float(np.finfo(problem.design.dtype).eps) * float(np.sum(np.abs(slope))) * length


def duality_gap(
    datafit: Datafit,
    y: np.ndarray,
    slope: np.ndarray,
    weight: np.ndarray,
    objective: float,
    shrink: np.ndarray | float,
    price: np.ndarray | float,
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
        From :meth:`~thresher.solve.penalties.base.Penalty.feasible`, for this problem.
    """
    conjugate = datafit.conjugate(y, slope / shrink, weight)
    assert conjugate is not None  # otherwise the gap is not asked for
    # Never negative but by rounding, and then wrong by as much.
    return abs(objective + conjugate + float(price))
