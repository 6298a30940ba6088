"""Accelerated proximal gradient: the solver that takes every pair."""

from __future__ import annotations

__all__ = ["Centred", "ProximalGradient"]

from dataclasses import dataclass, replace

import numpy as np

from ..centring import Centring
from ..datafits import PoissonIdentity
from ..problem import Problem, Solution
from .base import Solver
from .criterion import Criterion, Judgement
from .point import Fit, Point


@dataclass(frozen=True)
class ProximalGradient(Solver):
    """FISTA with backtracking and adaptive restart.

    Needs only the gradient of the datafit and the prox of the penalty, so that it takes
    penalties that couple all coefficients, and every datafit. Where coordinate or group
    descent applies it is the faster choice.

    Under a concave penalty the end is a fixed point of a step of the length that the curvature of
    the whole loss allows: from it no small move leads down, but a move of a single coefficient,
    whose own curvature is smaller, still may.

    Stops on the duality gap where it is known (see
    :class:`~thresher.solve.solvers.duality.DualityGap`), but for ``PoissonIdentity``, whose gap
    takes gradient steps up to three times as many: there, and where no gap is known, on the
    violation of optimality.

    Parameters
    ----------
    max_iter : int, default 10000
        Gradient steps.
    momentum : bool, default True
        Whether steps are accelerated; without momentum this is ISTA.

    References
    ----------
    Beck and Teboulle, A fast iterative shrinkage-thresholding algorithm for linear inverse
    problems (2009); O'Donoghue and Candès, Adaptive restart for accelerated gradient
    schemes (2015).
    """

    max_iter: int = 10_000
    momentum: bool = True

    def run(self, problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> Solution:
        """Minimise from the given start."""
        state = Centred(problem)
        coef = coef.astype(float)
        point = (coef, state.centring.constant(coef, intercept))
        extrapolated, momentum = point, 1.0
        criterion = Criterion.of(problem, self.tol)
        if isinstance(problem.datafit, PoissonIdentity):
            # Beside a boundary as steep as that of its counts the gap falls far behind.
            criterion = replace(criterion, gap=None)
        lipschitz = state.first_lipschitz()
        value = problem.objective(coef, state.predict(point))
        (found, judged), step_count = _judged(criterion, state, point), 0
        for step_count in range(1, self.max_iter + 1):
            following, lipschitz = state.step(extrapolated, lipschitz)
            reached = problem.objective(following[0], state.predict(following))
            if reached > value and momentum > 1:  # the momentum overshot: restart from here
                extrapolated, momentum = point, 1.0
                continue
            grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2 if self.momentum else 1.0
            weight = (momentum - 1) / grown
            extrapolated = tuple(
                a + weight * (a - b) for a, b in zip(following, point, strict=True)
            )
            point, momentum, value = following, grown, reached
            if step_count % 10 == 1:
                found, judged = _judged(criterion, state, point)
                if judged.converged:
                    break
        if not judged.converged:  # what is reported belongs to the point that is returned
            found, judged = _judged(criterion, state, point)
        return Solution(
            found.coef.astype(problem.design.dtype, copy=False),
            np.asarray(found.fit.intercept),
            judged.criterion,
            judged.kind,
            step_count,
            judged.converged,
        )


def _judged(
    criterion: Criterion, state: Centred, point: tuple[np.ndarray, np.ndarray]
) -> tuple[Point, Judgement]:
    """Measure a point, with the intercept that fits best where the gap asks for it."""
    coef, intercept = point[0], state.centring.intercept(*point)
    prediction = state.predict(point)
    found = Point(state.problem, coef, Fit(state.problem, prediction, intercept))
    if criterion.gap is not None:
        found = found.with_best_intercept()
    return found, criterion.judge(found, lambda: state.problem.violation(coef, prediction))


class Centred:
    """A problem with centred columns, so that the intercept does not slow the descent.

    Points are pairs of coefficients and the constant of the centred problem.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        means, self.curvature = problem.moments
        self.centring = Centring(None if means is None else means.astype(float))

    def predict(self, point: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the predictions at a point."""
        return self.problem.predict(point[0], self.centring.intercept(*point))

    def gradient(self, point: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradient of the datafit: of the coefficients, and of the constant."""
        problem = self.problem
        slope = problem.datafit.gradient(problem.y, self.predict(point), problem.weight)
        gradient = problem.design.correlate(slope).astype(float)
        if not problem.intercept:
            return gradient, np.zeros(slope.shape[1:])
        drift = slope.sum(axis=0)
        return self.centring.gradient(gradient, drift), drift

    def lipschitz_bound(self) -> float:
        """Return a bound of the Lipschitz constant for losses of bounded curvature.

        That of squares, Huber, quantile and logistic losses is largest at a residual or a
        prediction of zero.
        """
        problem = self.problem
        matrix = problem.design.matrix
        dense = matrix.toarray() if problem.design.is_sparse else matrix
        unit = np.sqrt(np.maximum(self._peak_curvature(), 0))[:, None]
        return max(
            float(np.linalg.norm(self.centring.columns(dense) * unit, 2)) ** 2,
            float(np.sum(unit**2)),
        )

    def _peak_curvature(self) -> np.ndarray:
        problem = self.problem
        at_zero = problem.datafit.curvature(problem.y, np.zeros_like(problem.y), problem.weight)
        at_null = problem.datafit.curvature(problem.y, problem.null_prediction, problem.weight)
        peak = np.maximum(at_zero, at_null)
        if problem.datafit.shift_equivariant:  # the curvature of residuals is largest at zero
            peak = np.maximum(peak, problem.datafit.curvature(problem.y, problem.y, problem.weight))
        return peak

    def first_lipschitz(self) -> float:
        """Return a lower guess, the largest column's curvature; backtracking raises it."""
        problem = self.problem
        unit = problem.datafit.curvature(problem.y, problem.null_prediction, problem.weight)
        relative = float(np.max(unit / np.maximum(problem.weight, 1e-300), initial=0.0))
        return max(float(np.max(self.curvature, initial=0.0)) * relative, 1e-300)

    def step(
        self, point: tuple[np.ndarray, np.ndarray], lipschitz: float
    ) -> tuple[tuple[np.ndarray, np.ndarray], float]:
        """Take one proximal gradient step, raising the Lipschitz constant until it descends."""
        problem = self.problem
        coef, constant = point
        prediction = self.predict(point)
        value = problem.datafit.value(problem.y, prediction, problem.weight)
        gradient, drift = self.gradient(point)
        unit = float(np.sum(problem.datafit.curvature(problem.y, prediction, problem.weight)))
        for _ in range(200):
            moved = problem.penalty.prox(coef - gradient / lipschitz, 1 / lipschitz)
            shift = -drift / max(unit, 1e-300)
            following = (moved, constant + shift)
            change = moved - coef
            bound = value + np.sum(gradient * change) + lipschitz / 2 * np.sum(change**2)
            bound += np.sum(drift * shift) + unit / 2 * np.sum(shift**2)
            reached = problem.datafit.value(problem.y, self.predict(following), problem.weight)
            if reached <= bound + 1e-12 * abs(value) or not np.any(change):
                break
            lipschitz *= 2
            unit *= 1.5
        return following, lipschitz
