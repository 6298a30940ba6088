"""Newton steps on one class after another, for losses of several outputs."""

from __future__ import annotations

__all__ = ["ClassDescent"]

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..penalties import Separable
from ..problem import Problem, Solution
from .base import Need, Solver
from .criterion import Criterion
from .descent import CoordinateDescent
from .newton import newton_round
from .point import Fit, Point

_STEPS = 2  # Newton steps on a class before the next: its loss changes with theirs


@dataclass(frozen=True)
class ClassDescent(Solver):
    """Descent over the outputs of a loss, by proximal Newton steps on each.

    For convex separable penalties of losses that tell what one output costs beside the others,
    such as :class:`~thresher.solve.datafits.generalized.Multinomial`. The curvature of a class is
    its own there; one bound for all classes, as gradient steps need, is several times as large.

    References
    ----------
    Friedman, Hastie and Tibshirani, Regularization paths for generalized linear models via
    coordinate descent (2010), section 4.
    """

    needs: ClassVar = (
        Need(
            lambda _, problem: problem.datafit.parted,
            "the loss does not tell what one output costs beside the others; use ProximalGradient",
        ),
        Need(
            lambda _, problem: (
                isinstance(problem.penalty, Separable)
                and problem.penalty.kind is not None
                and problem.penalty.convex
            ),
            "the penalty is not separable, convex and compiled; use ProximalGradient",
        ),
    )

    def run(self, problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> Solution:
        """Descend from the given start."""
        floor = 8 * float(np.finfo(problem.design.dtype).eps)
        criterion = Criterion.of(problem, max(self.tol, floor))
        inner = CoordinateDescent(tol=self.tol, max_iter=self.max_iter)
        point = Point(problem, coef, Fit(problem, problem.predict(coef, intercept), intercept))
        for rounds in range(self.max_iter + 1):
            judged = criterion.judge(point, lambda at=point: _violation(at))  # type: ignore[misc]
            if judged.converged or rounds == self.max_iter:
                break
            following = _pass(inner, point)
            if np.array_equal(following.fit.prediction, point.fit.prediction):
                break
            point = following
        return Solution(
            point.coef, point.fit.intercept, judged.criterion, judged.kind, rounds, judged.converged
        )


def _violation(point: Point) -> float:
    return point.problem.violation(point.coef, point.fit.prediction)


def _pass(inner: CoordinateDescent, point: Point) -> Point:
    """Return the point after steps on every output in turn."""
    problem, coef = point.problem, point.coef.copy()
    prediction, intercept = point.fit.prediction.copy(), np.array(point.fit.intercept)
    for k in range(prediction.shape[1]):
        part = Problem(
            problem.design,
            np.ascontiguousarray(problem.y[:, k]),
            problem.datafit.given_others(prediction, k),
            problem.penalty,
            problem.weight,
            problem.intercept,
        )
        start = Fit(part, np.ascontiguousarray(prediction[:, k]), intercept[k])
        moved = newton_round(inner, Point(part, np.ascontiguousarray(coef[:, k]), start), _STEPS)
        coef[:, k], prediction[:, k] = moved.coef, moved.fit.prediction
        intercept[k] = moved.fit.intercept
    if problem.intercept and problem.datafit.of_differences:
        # Where they lie together would else be what the order of the steps makes it.
        middle = intercept.mean()
        intercept, prediction = intercept - middle, prediction - middle
    return Point(problem, coef, Fit(problem, prediction, intercept))
