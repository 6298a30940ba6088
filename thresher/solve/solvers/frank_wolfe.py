"""Conditional gradient on balls of atoms: one atom per step, no projection."""

from __future__ import annotations

__all__ = ["FrankWolfe"]

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...core.card import Card, Catalogued
from ..line_search import search
from ..penalties import Ball, Polytope
from ..problem import Problem, Solution
from .base import Need, Solver


@dataclass(frozen=True)
class FrankWolfe(Catalogued, Solver):
    """Frank-Wolfe, for a smooth datafit over a :class:`~thresher.solve.penalties.balls.Ball`.

    After t steps the solution is a combination of at most t + 1 atoms, hence sparse on the
    L1 ball and of low rank on the nuclear ball. The Frank-Wolfe gap bounds the distance to
    the optimum and is the stopping rule.

    On polytopes (L1 ball, simplex) a step moves weight from the worst atom in use to the
    best of all: such pairwise steps converge linearly. The nuclear ball has infinitely many
    atoms and takes the textbook's steps towards the best one, whose gap falls as one over
    their number: ask for a `tol` of about 1e-3 there.

    Parameters
    ----------
    tol : float, default 1e-6
        Frank-Wolfe gap to reach, relative to the loss of the best constant.
    max_iter : int, default 10000
        Steps.
    line_search : bool, default True
        Whether steps minimise the quadratic model along their way, halved until the loss
        falls; otherwise step t goes ``2 / (t + 2)`` of the way to the best atom, on
        polytopes too.

    Raises
    ------
    OptionError
        When solving: if the penalty is not a ball of atoms or does not suit the shape of the
        coefficients, or if the loss has a kink.

    References
    ----------
    Bubeck, Convex optimization: algorithms and complexity (2014), arXiv:1405.4980, equations
    3.8 and 3.9 with the step of theorem 3.8, which counts from one.

    Lacoste-Julien and Jaggi, On the global linear convergence of Frank-Wolfe optimization
    variants (2015), algorithm 2: the pairwise steps.
    """

    card = Card(
        name="frank-wolfe",
        title="Convex Optimization: Algorithms and Complexity",
        authors="Sébastien Bubeck",
        year=2014,
        arxiv="1405.4980",
        summary="conditional gradient on balls of atoms, beside accelerated proximal gradient",
    )

    max_iter: int = 10_000
    line_search: bool = True

    needs: ClassVar = (
        Need(
            lambda _, problem: isinstance(problem.penalty, Ball),
            "the penalty is not a ball of atoms such as L1Ball; use ProximalGradient",
        ),
    )

    def run(self, problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> Solution:
        """Minimise from the given start, or from an atom if that lies outside the ball."""
        penalty = problem.penalty
        assert isinstance(penalty, Ball)
        coef = coef.astype(float)
        if penalty.value(coef) > 0:
            coef = penalty.atom(problem.null_gradient.astype(float))
        pairwise = _Pairwise(penalty, coef) if isinstance(penalty, Polytope) else None
        if not self.line_search:
            pairwise = None
        scale = abs(problem.datafit.value(problem.y, problem.null_prediction, problem.weight))
        gap, count = np.inf, 0
        while True:
            offset = problem.predict(coef, np.zeros(()))
            intercept = problem.best_intercept(offset, intercept)
            prediction = offset + intercept
            gradient = problem.gradient(prediction).astype(float)
            toward, longest = penalty.atom(gradient) - coef, 1.0
            gap = -float(np.vdot(gradient, toward))
            if gap <= self.tol * scale or count >= self.max_iter:
                break
            if pairwise is not None:
                toward, longest = pairwise.direction(gradient)
            step = 2 / (count + 2)
            if self.line_search:
                slope = -float(np.vdot(gradient, toward))
                step = _step(problem, prediction, toward, slope, longest)
                if step == 0:
                    break  # rounding is all that is left
            coef = coef + step * toward if pairwise is None else pairwise.moved(step)
            count += 1
        return Solution(
            coef.astype(problem.design.dtype, copy=False),
            np.asarray(intercept),
            gap / scale if scale > 0 else 0.0,
            "Frank-Wolfe gap",
            count,
            bool(gap <= self.tol * scale),
        )


class _Pairwise:
    """A point of a polytope as convex weights of its atoms, moved between two at a time."""

    def __init__(self, ball: Polytope, coef: np.ndarray) -> None:
        self.ball = ball
        self.shape = coef.shape
        self.shares = ball.shares(coef)
        self.best = self.worst = 0

    def direction(self, gradient: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the way from the worst atom in use to the best of all, and its length."""
        scores = self.ball.scores(gradient)
        self.best = int(np.argmin(scores))
        self.worst = int(np.argmax(np.where(self.shares > 0, scores, -np.inf)))
        change = np.zeros(len(scores))
        change[self.worst] = -1
        change[self.best] += 1
        return self.ball.combined(change, self.shape), float(self.shares[self.worst])

    def moved(self, step: float) -> np.ndarray:
        """Return the point after `step`, at most the length, of the last direction."""
        left = self.shares[self.worst] - step
        self.shares[self.best] += step
        self.shares[self.worst] = left
        return self.ball.combined(self.shares, self.shape)


def _step(
    problem: Problem, prediction: np.ndarray, toward: np.ndarray, slope: float, longest: float
) -> float:
    """Return the step, at most `longest`, that minimises a quadratic model and lowers the loss."""
    datafit, y, weight = problem.datafit, problem.y, problem.weight
    along = problem.predict(toward, np.zeros(()))
    square = along**2 if along.ndim == 1 else np.sum(along**2, axis=1)
    bend = float(datafit.curvature(y, prediction, weight) @ square)
    step = min(longest, slope / bend) if bend > 0 else longest
    if datafit.quadratic:
        return step

    def reach(length: float) -> tuple[float, float]:
        return datafit.value(y, prediction + length * along, weight), length

    taken = search(reach, datafit.value(y, prediction, weight), step, trials=40)
    return 0.0 if taken is None else taken[1]
