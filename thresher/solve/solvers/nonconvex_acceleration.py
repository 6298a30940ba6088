"""Accelerated gradient for penalties that are an L1 norm plus a smooth concave part."""

from __future__ import annotations

__all__ = ["AcceleratedConcave"]

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...core.card import Card, Catalogued
from ...core.prox import soft
from ..penalties import MCP, SCAD
from ..problem import Problem, Solution
from .base import Need, Solver
from .proximal_gradient import Centred


@dataclass(frozen=True)
class AcceleratedConcave(Catalogued, Solver):
    """Nesterov's acceleration for SCAD and MCP.

    The penalty is the L1 norm plus a smooth concave remainder, which joins the loss, so
    that the prox is a soft thresholding. The two step sizes follow the complexity bound:
    damping ``2 / (k + 1)``, an aggregate step just below the inverse Lipschitz constant
    (the concavity of the penalty included), and steps of the fast sequence growing with k. The
    Lipschitz constant is a singular value, for which a sparse design is made dense.

    Parameters
    ----------
    tol : float, default 1e-6
        Violation of optimality to reach, relative to that at zero.
    max_iter : int, default 10000
        Gradient steps.
    accelerate : bool, default True
        Without it the method is plain proximal gradient on the same split.

    Raises
    ------
    OptionError
        When solving: if the penalty is not SCAD or MCP, or has a sign constraint, if there are
        several outputs, or if the curvature of the loss is not bounded.

    References
    ----------
    Yang, Asgharian and Bhatnagar, Accelerated gradient methods for sparse statistical
    learning with nonconvex penalties (2020), arXiv:2009.10629, for choosing the step sizes by
    the complexity bound.
    """

    card = Card(
        name="accelerated-concave",
        title=(
            "Accelerated Gradient Methods for Sparse Statistical Learning with Nonconvex Penalties"
        ),
        authors="Kai Yang, Masoud Asgharian, Sahir Bhatnagar",
        year=2020,
        arxiv="2009.10629",
        summary="accelerated proximal gradient for SCAD and MCP, their concave part in the loss",
    )

    max_iter: int = 10_000
    accelerate: bool = True

    needs: ClassVar = (
        Need(
            lambda _, problem: (
                isinstance(problem.penalty, MCP | SCAD) and not problem.penalty.positive
            ),
            "the penalty is not SCAD or MCP without a sign constraint; use ProximalGradient",
        ),
        Need(
            lambda _, problem: not problem.datafit.multiple_outputs,
            "several outputs are not taken; use ProximalGradient",
        ),
        Need(
            lambda _, problem: problem.datafit.bounded_curvature,
            "the steps need a loss of bounded curvature; use CoordinateDescent",
        ),
    )

    def run(self, problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> Solution:
        """Minimise from the given start."""
        state = Centred(problem)
        penalty = problem.penalty
        assert isinstance(penalty, MCP | SCAD)
        concavity = 1 / penalty.gamma if isinstance(penalty, MCP) else 1 / (penalty.gamma - 1)
        aggregate_step = 0.99 / (state.lipschitz_bound() + concavity)
        scale = float(np.max(np.abs(problem.null_gradient), initial=0.0))
        # The intercept is one more, unpenalised, coordinate of the centred problem.
        point = np.append(coef.astype(float), state.centring.constant(coef, intercept))
        aggregate = point.copy()
        converged, violation, count = scale == 0, 0.0, 0
        for count in range(1, self.max_iter + 1):
            damping = 2 / (count + 1) if self.accelerate else 1.0
            # The fast sequence may step further the more it is damped.
            step = aggregate_step * (count / 2 if self.accelerate else 1.0)
            middle = (1 - damping) * aggregate + damping * point
            gradient = self._gradient(state, middle, penalty)
            point = _shrink(point - step * gradient, step * penalty.strength)
            aggregate = _shrink(
                middle - aggregate_step * gradient, aggregate_step * penalty.strength
            )
            if not self.accelerate:
                point = aggregate
            if count % 10 == 1:
                found = aggregate[:-1], aggregate[-1]
                violation = problem.violation(found[0], state.predict(found))
                converged = violation <= self.tol * scale
                if converged:
                    break
        coef, constant = aggregate[:-1], aggregate[-1]
        return Solution(
            coef.astype(problem.design.dtype, copy=False),
            np.asarray(state.centring.intercept(coef, constant)),
            violation / scale if scale > 0 else 0.0,
            "optimality violation",
            count,
            bool(converged),
        )

    def _gradient(self, state: Centred, point: np.ndarray, penalty: MCP | SCAD) -> np.ndarray:
        coef, constant = point[:-1], point[-1]
        gradient, drift = state.gradient((coef, constant))
        concave = np.sign(coef) * (penalty.derivatives(np.abs(coef)) - penalty.strength)
        return np.append(gradient + concave, drift)


def _shrink(point: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    return np.append(soft(point[:-1], threshold), point[-1])
