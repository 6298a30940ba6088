"""Block coordinate descent on the most promising coordinates, then Newton on the support."""

from __future__ import annotations

__all__ = ["GreedyBlocks"]

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import sparse

from ...core.card import Card, Catalogued
from ...core.errors import OptionError, nearest
from ...core.options import check_whole
from ..line_search import search
from ..penalties import L1
from ..problem import Problem, Solution
from .base import Need, Solver
from .block_rules import BLOCKS, RULES, BlockChooser, sample_curvature
from .descent import CoordinateDescent
from .forest_blocks import forest_solve
from .quadratic import Quadratic


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
    rule : str, default "diagonal"
        What makes a block ``b`` with gradient ``g_b`` and Hessian ``H_b`` the next one. With
        the L1 norm each measure is the decrease of the same model plus the norm.

        - ``"diagonal"`` (GSD): ``sum g_i^2 / H_ii``, each coordinate by its own curvature.
        - ``"gauss-southwell"`` (GS): ``||g_b||^2``, the violation of optimality.
        - ``"lipschitz"`` (GSL): ``||g_b||^2 / L_b`` with the largest eigenvalue ``L_b`` of
          ``H_b``; fixed blocks only.
        - ``"quadratic"`` (GSQ): ``g_b' H_b^-1 g_b``, what the update gains; fixed blocks only.
        - ``"random"`` and ``"cyclic"`` do not look.
    blocks : {"variable", "fixed", "forest"}, default "variable"
        The best `block` coordinates of every step; a partition into coordinates of like
        curvature; or as many coordinates as depend on each other in a forest, the best first,
        whose update takes linear time by message passing. Forests are for a sparse design
        without intercept and for no penalty: ``L1(0.0)``.
    block : int, default 20
        Coordinates per block, where they are not forests.
    newton : bool, default True
        Whether to take Newton steps on a support whose signs did not change; not taken with
        forests, as they solve a dense system.
    seed : int, default 0
        For the random rule.

    Raises
    ------
    OptionError
        If an option is out of range, or the rule, blocks and problem do not go together.

    References
    ----------
    Nutini, Laradji and Schmidt, Let's make block coordinate descent converge faster (2017),
    for the rules, message passing and the active set.
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

    rule: str = "diagonal"
    blocks: str = "variable"
    block: int = 20
    newton: bool = True
    seed: int = 0

    def check_options(self) -> None:
        """Raise OptionError if an option is out of range, or rule and blocks do not go together."""
        super().check_options()
        if self.rule not in RULES:
            raise OptionError(f"there is no rule {self.rule!r}; {nearest(self.rule, RULES)}")
        if self.blocks not in BLOCKS:
            raise OptionError(
                f"there are no blocks {self.blocks!r}; {nearest(self.blocks, BLOCKS)}"
            )
        check_whole("block", self.block)
        check_whole("seed", self.seed, least=0)
        if self.rule in ("lipschitz", "quadratic") and self.blocks != "fixed":
            raise OptionError(
                f"rule {self.rule!r} compares blocks that are given, not {self.blocks!r} ones; "
                "set blocks to 'fixed', or rule to 'diagonal'"
            )

    needs: ClassVar = (
        Need(
            lambda _, problem: (
                isinstance(problem.penalty, L1) and not problem.datafit.multiple_outputs
            ),
            "only the L1 norm and a single output are taken; use CoordinateDescent",
        ),
        Need(
            lambda solver, problem: solver.blocks != "forest" or _has_forests(problem),
            "forest blocks need a sparse design, no intercept and no penalty; set alpha to 0, or "
            "blocks to 'variable'",
        ),
    )

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
        chooser = BlockChooser(problem, self.rule, self.blocks, self.block, self.seed)
        settled = 0
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
            if self.newton and self.blocks != "forest" and settled >= 3 and outside < inside:
                moved = _newton(problem, coef, prediction, gradient)
            if moved is None:
                chosen = chooser.choose(coef, prediction, gradient, distance)
                if self.blocks == "forest":
                    hessian = chooser.model.hessian
                    moved = _message(problem, coef, prediction, gradient, chosen, hessian)
                else:
                    accuracy = 0.01 * max(inside, outside)
                    moved = _update(problem, coef, prediction, chosen, accuracy)
            settled = settled + 1 if np.array_equal(np.sign(coef), np.sign(moved)) else 0
            coef = moved


def _update(
    problem: Problem,
    coef: np.ndarray,
    prediction: np.ndarray,
    chosen: np.ndarray,
    accuracy: float,
) -> np.ndarray:
    """Minimise the quadratic model over one block, halving the step until the objective falls."""
    weight = sample_curvature(problem, prediction)
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


def _message(
    problem: Problem,
    coef: np.ndarray,
    prediction: np.ndarray,
    gradient: np.ndarray,
    chosen: np.ndarray,
    hessian: sparse.csr_array,
) -> np.ndarray:
    """Take a Newton step on a forest of coordinates by message passing."""
    block = sparse.csr_array(hessian[chosen][:, chosen])
    # A tree without any data of its own has a singular block; a little keeps it bounded.
    block += sparse.diags_array(np.full(len(chosen), 1e-12 * max(block.diagonal().max(), 1e-300)))
    toward = np.zeros_like(coef)
    toward[chosen] = forest_solve(block, -gradient[chosen])
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
    weight = sample_curvature(problem, prediction)
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
    along = problem.predict(toward, np.zeros(()))
    constant = prediction - problem.predict(coef, np.zeros(()))

    def reach(step: float) -> tuple[float, np.ndarray]:
        moved = coef + step * toward
        offset = prediction - constant + step * along
        reached = offset + problem.best_intercept(offset, constant[0])
        return problem.objective(moved, reached), moved

    taken = search(reach, problem.objective(coef, prediction))
    return coef if taken is None else taken[1]


def _has_forests(problem: Problem) -> bool:
    penalty = problem.penalty
    assert isinstance(penalty, L1)
    free = not np.any(np.asarray(penalty.strength) != 0) and not penalty.positive
    return free and not problem.intercept and problem.design.is_sparse
