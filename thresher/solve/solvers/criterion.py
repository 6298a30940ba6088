"""When a convex problem counts as solved: by its duality gap, else by its violation."""

from __future__ import annotations

__all__ = ["Criterion", "Judgement"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..problem import Problem
from .duality import DualityGap
from .point import Point


@dataclass(frozen=True)
class Judgement:
    """What was found at a point.

    Parameters
    ----------
    criterion : float
        Duality gap or violation of optimality, relative to its scale.
    kind : str
        Which of the two, as in :class:`~thresher.solve.problem.Solution`.
    converged : bool
        Whether the tolerance is met.
    """

    criterion: float
    kind: str
    converged: bool


@dataclass(frozen=True)
class Criterion:
    """The duality gap where it is known and finite, the violation of optimality otherwise.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    tol : float
        Relative to the scale of either: the loss of the best constant, or the steepest slope
        there.
    gap : DualityGap or None
        The gap, None where it is not known.
    """

    problem: Problem
    tol: float
    gap: DualityGap | None

    @classmethod
    def of(cls, problem: Problem, tol: float) -> Criterion:
        """Return the criterion of a problem."""
        return cls(problem, tol, DualityGap.of(problem))

    def judge(self, point: Point, violation: float | Callable[[], float]) -> Judgement:
        """Measure a point.

        Parameters
        ----------
        point : Point
            Of the problem, its intercept the best one where the gap is known.
        violation : float or callable
            The violation of optimality there, or what returns it if it is needed.
        """
        if self.gap is not None:
            gap = self.gap.at(point)
            if np.isfinite(gap):
                return _judged(gap, self.gap.scale, self.gap.tolerance(self.tol), "duality gap")
        scale = float(np.max(np.abs(self.problem.null_gradient), initial=0.0))
        found = violation() if callable(violation) else violation
        return _judged(found, scale, self.tol * scale, "optimality violation")


def _judged(criterion: float, scale: float, tolerance: float, kind: str) -> Judgement:
    relative = criterion / scale if scale > 0 else 0.0
    return Judgement(relative, kind, bool(criterion <= tolerance))
