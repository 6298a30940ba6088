"""Block coordinate descent on the most promising coordinates, then Newton on the support."""

from __future__ import annotations

__all__ = ["GreedyBlocks"]

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...core.card import Card, Catalogued
from ...core.errors import OptionError, nearest
from ...core.prox import soft
from ...core.top_k import top_k_mask
from ..penalties import L1
from .base import Solver
from .descent import CoordinateDescent
from .problem import Problem, Solution
from .quadratic import Quadratic

_RULES = ("cyclic", "random", "gauss-southwell", "curvature")


@dataclass(frozen=True)
class GreedyBlocks(Catalogued, Solver):
    """Greedy block coordinate descent for the L1 norm, with active-set Newton steps.

    Each step minimises the quadratic model of the loss plus penalty over one block. Once
    signs have settled, Newton steps on the support end the work in a few more.

    Parameters
    ----------
    tol : float, default 1e-6
        Violation of optimality to reach, relative to that at zero.
    max_iter : int, default 1000
        Block updates.
    rule : {"curvature", "gauss-southwell", "random", "cyclic"}, default "curvature"
        Which coordinates form the next block: those whose own update lowers the objective
        most (curvature-aware), those that violate optimality most, or without looking.
    block : int, default 20
        Coordinates per block.
    newton : bool, default True
        Whether to take Newton steps on a support whose signs did not change.
    seed : int, default 0
        For the random rule.
    """

    card = Card(
        name="greedy-blocks",
        title=(
            "Let's Make Block Coordinate Descent Converge Faster: Faster Greedy Rules, "
            "Message-Passing, Active-Set Complexity, and Superlinear Convergence"
        ),
        authors="Julie Nutini, Issam Laradji, Mark Schmidt",
        year=2017,
        arxiv="1712.08859",
        summary="descend on the blocks that promise most, then Newton on the settled support",
    )

    rule: str = "curvature"
    block: int = 20
    newton: bool = True
    seed: int = 0

    def refusal(self, problem: Problem) -> str | None:
        """Say why the pair cannot be solved; None if it can."""
        if self.rule not in _RULES:
            raise OptionError(f"there is no rule {self.rule!r}; {nearest(self.rule, _RULES)}")
        if not isinstance(problem.penalty, L1) or problem.datafit.multiple_outputs:
            return "only the L1 norm and a single output are taken; use CoordinateDescent"
        return None

    def run(self, problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> Solution:
        """Minimise from the given start."""
        violation = scale = float(np.max(np.abs(problem.null_gradient), initial=0.0))
        count = 0
        for count, state in enumerate(self.steps(problem, coef, intercept)):
            coef, intercept, violation = state
            if violation <= self.tol * scale or count >= self.max_iter:
                break
        relative = violation / scale if scale > 0 else 0.0
        converged = violation <= self.tol * scale
        return Solution(
            coef, np.asarray(intercept), relative, "optimality violation", count, converged
        )

    def steps(
        self, problem: Problem, coef: np.ndarray, intercept: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Yield coefficients, intercept and violation, from the start and after every step."""
        penalty = problem.penalty
        assert isinstance(penalty, L1)
        rng = np.random.default_rng(self.seed)
        count = min(self.block, len(coef))
        settled = position = 0
        while True:
            offset = problem.predict(coef, np.zeros(()))
            intercept = problem.best_intercept(offset, intercept)
            prediction = offset + intercept
            gradient = problem.gradient(prediction)
            distance = penalty.subdifferential_distance(coef, gradient)
            yield coef, intercept, float(np.max(distance, initial=0.0))
            moved = None
            # Newton cannot add coefficients: the support must hold the worst violation.
            outside = float(np.max(distance[coef == 0], initial=0.0))
            inside = float(np.max(distance[coef != 0], initial=0.0))
            if self.newton and settled >= 3 and outside < inside:
                moved = _newton(problem, coef, prediction, gradient)
            if moved is None:
                if self.rule == "cyclic":
                    chosen = np.sort((position + np.arange(count)) % len(coef))
                    position += count
                elif self.rule == "random":
                    chosen = np.sort(rng.choice(len(coef), count, replace=False))
                else:
                    promise = distance
                    if self.rule == "curvature":
                        promise = _gains(problem, coef, prediction, gradient)
                    chosen = np.flatnonzero(top_k_mask(promise, count))
                moved = _update(problem, coef, prediction, chosen, 0.01 * max(inside, outside))
            settled = settled + 1 if np.array_equal(np.sign(coef), np.sign(moved)) else 0
            coef = moved


def _sample_curvature(problem: Problem, prediction: np.ndarray) -> np.ndarray:
    curvature = problem.datafit.curvature(problem.y, prediction, problem.weight)
    # Samples that are fitted to saturation have none; a little keeps the models bounded.
    return np.maximum(curvature, 1e-8 * max(float(curvature.max()), 1e-300))


def _gains(
    problem: Problem, coef: np.ndarray, prediction: np.ndarray, gradient: np.ndarray
) -> np.ndarray:
    """Return what the update of each coordinate alone would gain, by its own curvature."""
    weight = _sample_curvature(problem, prediction)
    bend = problem.design.moments(weight, problem.intercept)[1]
    safe = np.where(bend > 0, bend, 1.0)
    strength = problem.penalty.strength  # type: ignore[attr-defined]
    moved = soft(coef - gradient / safe, strength / safe)
    step = moved - coef
    change = gradient * step + bend / 2 * step**2 + strength * (np.abs(moved) - np.abs(coef))
    return np.where(bend > 0, -change, 0.0)


def _update(
    problem: Problem,
    coef: np.ndarray,
    prediction: np.ndarray,
    chosen: np.ndarray,
    accuracy: float,
) -> np.ndarray:
    """Minimise the quadratic model over one block, halving the step until the objective falls."""
    weight = _sample_curvature(problem, prediction)
    slope = problem.datafit.gradient(problem.y, prediction, problem.weight)
    design, penalty = problem.design.columns(chosen), problem.penalty.restricted(chosen)
    inside = coef[chosen].copy()
    # The model in the block alone: the rest of the prediction belongs to the target.
    target = design.predict(inside) - slope / weight
    model = Quadratic.weighted(design, target, weight, problem.intercept)
    CoordinateDescent().descend(model, penalty, inside, accuracy)
    toward = np.zeros_like(coef)
    toward[chosen] = inside - coef[chosen]
    return _descend(problem, coef, prediction, toward)


def _newton(
    problem: Problem, coef: np.ndarray, prediction: np.ndarray, gradient: np.ndarray
) -> np.ndarray | None:
    """Take a Newton step on the support, None where it would change a sign or not descend."""
    support = np.flatnonzero(coef)
    if len(support) == 0:
        return None
    columns = problem.design.matrix[:, support]
    columns = columns.toarray() if problem.design.is_sparse else np.asarray(columns)
    weight = _sample_curvature(problem, prediction)
    if problem.intercept:
        columns = columns - weight @ columns / weight.sum()
    hessian = (columns * weight[:, None]).T @ columns
    hessian[np.diag_indices_from(hessian)] += 1e-12 * max(float(np.trace(hessian)), 1e-300)
    strength = np.broadcast_to(problem.penalty.strength, coef.shape)  # type: ignore[attr-defined]
    slope = gradient[support] + strength[support] * np.sign(coef[support])
    toward = np.zeros_like(coef)
    toward[support] = -np.linalg.solve(hessian, slope)
    moved = coef + toward
    if not np.array_equal(np.sign(moved), np.sign(coef)):
        return None
    descended = _descend(problem, coef, prediction, toward)
    return None if np.array_equal(descended, coef) else descended


def _descend(
    problem: Problem, coef: np.ndarray, prediction: np.ndarray, toward: np.ndarray
) -> np.ndarray:
    current = problem.objective(coef, prediction)
    slack = 4 * np.finfo(float).eps * abs(current)
    along = problem.predict(toward, np.zeros(()))
    constant = prediction - problem.predict(coef, np.zeros(()))
    step = 1.0
    while step > 1e-8:
        moved = coef + step * toward
        offset = prediction - constant + step * along
        reached = offset + problem.best_intercept(offset, constant[0])
        if problem.objective(moved, reached) <= current + slack:
            return moved
        step /= 2
    return coef
