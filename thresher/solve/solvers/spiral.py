"""Sparse intensities from counts: proximal gradient with spectral steps."""

from __future__ import annotations

__all__ = ["Spiral"]

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...core.card import Card, Catalogued
from ...core.options import check_whole
from ..datafits import PoissonIdentity
from ..problem import Problem, Solution
from .base import Need, Solver


@dataclass(frozen=True)
class Spiral(Catalogued, Solver):
    """SPIRAL-TAP: Poisson likelihood with an identity link under a non-negative penalty.

    Every step minimises a separable quadratic with the Barzilai-Borwein curvature plus the
    penalty, and is accepted if the objective falls below the largest of the last few; else
    the curvature is doubled. Penalties need a prox that keeps coefficients non-negative:
    ``L1``, ``HaarL1``, ``TotalVariation`` or ``DyadicPartition`` with ``positive=True``.

    Parameters
    ----------
    tol : float, default 1e-6
        Violation of optimality to reach, relative to that at the start.
    max_iter : int, default 5000
        Steps.
    memory : int, default 10
        How many past objectives the acceptance looks at; 1 makes the descent monotone.

    Raises
    ------
    OptionError
        If `memory` is not a whole number of at least one.

    References
    ----------
    Harmany, Marcia and Willett, This is SPIRAL-TAP: sparse Poisson intensity reconstruction
    algorithms - theory and practice, IEEE Transactions on Image Processing 21 (2012),
    arXiv:1005.4274, for the quadratic approximations and the penalties.
    """

    card = Card(
        name="spiral-tap",
        title=(
            "This is SPIRAL-TAP: Sparse Poisson Intensity Reconstruction ALgorithms - Theory "
            "and Practice"
        ),
        authors="Zachary T. Harmany, Roummel F. Marcia, Rebecca M. Willett",
        year=2010,
        arxiv="1005.4274",
        summary="sparse or piecewise constant intensities from Poisson counts",
    )

    max_iter: int = 5000
    memory: int = 10

    def check_options(self) -> None:
        """Raise OptionError if an option is out of range."""
        super().check_options()
        check_whole("memory", self.memory)

    needs: ClassVar = (
        Need(
            lambda _, problem: isinstance(problem.datafit, PoissonIdentity),
            "the loss is not PoissonIdentity; use ProximalGradient or CoordinateDescent",
        ),
        Need(
            lambda _, problem: getattr(problem.penalty, "positive", False),
            "the penalty allows negative intensities; give it positive=True",
        ),
        Need(
            lambda _, problem: not problem.intercept,
            "a constant intensity is the background of the loss; set intercept to False",
        ),
        Need(
            lambda _, problem: problem.design.matrix.min() >= 0,
            "a feature has negative entries, which no intensity has; use CoordinateDescent",
        ),
    )

    def run(self, problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> Solution:
        """Minimise from the given start; zeros are replaced by the back-projected counts."""
        coef = coef.astype(float)
        if not np.any(coef):
            coef = self._start(problem)
        prediction = problem.predict(coef, intercept)
        gradient = problem.gradient(prediction).astype(float)
        value = problem.objective(coef, prediction)
        recent = deque([value], maxlen=self.memory)
        bend = self._bend(problem, prediction, np.ones_like(coef))
        scale = self._violation(problem, coef, gradient, bend)
        violation, count = scale, 0
        while violation > self.tol * scale and count < self.max_iter:
            count += 1
            for _ in range(100):
                moved = problem.penalty.prox(coef - gradient / bend, 1 / bend)
                change = moved - coef
                reached = problem.predict(moved, intercept)
                value = problem.objective(moved, reached)
                decrease = 0.05 * bend * float(change @ change)
                if value <= max(recent) - decrease or not np.any(change):
                    break
                bend *= 2
            recent.append(value)
            coef, prediction = moved, reached
            gradient = problem.gradient(prediction).astype(float)
            bend = self._bend(problem, prediction, change)
            violation = self._violation(problem, coef, gradient, bend)
        return Solution(
            coef.astype(problem.design.dtype, copy=False),
            np.asarray(intercept),
            violation / scale if scale > 0 else 0.0,
            "optimality violation",
            count,
            bool(violation <= self.tol * scale),
        )

    def _start(self, problem: Problem) -> np.ndarray:
        """Return the back-projection of the counts, scaled to predict as many in total.

        Unlike a flat intensity it has detail, which penalties that are not convex keep only where
        they find it.
        """
        back = np.maximum(problem.design.correlate(problem.weight * problem.y), 0).astype(float)
        if not np.any(back):
            back = np.ones(problem.coef_shape)
        response = float(problem.weight @ problem.predict(back, np.zeros(())))
        level = float(problem.weight @ problem.y) / max(response, 1e-300)
        return np.maximum(back * level, 1e-10)

    def _bend(self, problem: Problem, prediction: np.ndarray, change: np.ndarray) -> float:
        """Return the curvature of the loss along the last change."""
        along = problem.predict(change, np.zeros(()))
        assert isinstance(problem.datafit, PoissonIdentity)
        mean = prediction + problem.datafit.background
        curvature = problem.weight * problem.y / mean**2  # itself, not a bound of it
        bend = float(curvature @ along**2) / max(float(change @ change), 1e-300)
        return float(np.clip(bend, 1e-12, 1e30))

    def _violation(
        self, problem: Problem, coef: np.ndarray, gradient: np.ndarray, bend: float
    ) -> float:
        """Return the violation of optimality; where it depends on a step, that of this curvature.

        A short step finds any partition optimal, as its saving cannot pay for another piece.
        """
        distance = problem.penalty.subdifferential_distance(coef, gradient, bend)
        return float(np.max(distance, initial=0.0))
