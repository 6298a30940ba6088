"""Which coordinates a block coordinate descent updates next: the rules and the kinds of block."""

from __future__ import annotations

__all__ = [
    "BLOCKS",
    "RULES",
    "BlockChooser",
    "quadratic_gains",
    "sample_curvature",
    "separable_gains",
]

from functools import cached_property

import numpy as np
from scipy import sparse

from ...core.prox import soft
from ...core.top_k import top_k_mask
from ..problem import Problem
from .forest_blocks import forest_block, forest_partition
from .quadratic import Quadratic, grams

RULES = ("cyclic", "random", "gauss-southwell", "lipschitz", "diagonal", "quadratic")
BLOCKS = ("variable", "fixed", "forest")


class BlockChooser:
    """Chooses blocks for one run of a descent.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    rule : str
        One of ``RULES``.
    blocks : str
        One of ``BLOCKS``.
    size : int
        Coordinates per block; forests are as large as they come.
    seed : int
        For the random rule.
    """

    def __init__(self, problem: Problem, rule: str, blocks: str, size: int, seed: int) -> None:
        self.problem, self.rule, self.blocks = problem, rule, blocks
        self.size = min(size, problem.coef_shape[0])
        self._random = np.random.default_rng(seed)
        self._turn = -1

    def choose(
        self,
        coef: np.ndarray,
        prediction: np.ndarray,
        gradient: np.ndarray,
        distance: np.ndarray,
    ) -> np.ndarray:
        """Return the coordinates of the next block, ascending.

        Parameters
        ----------
        coef, gradient, distance : arrays of shape (p,)
            Coefficients, gradient of the loss, and violation of optimality.
        prediction : array of shape (n,)
            Predictions at `coef`.
        """
        self._turn += 1
        if self._turn == 0 or not self.problem.datafit.quadratic:
            self.model = _Model(self.problem, prediction)
            self._kept: np.ndarray | None = None
        if self.rule in ("cyclic", "random"):
            return self._blind(len(coef))
        if self.blocks == "fixed":
            gains = self._block_gains(coef, gradient, distance)
            return self.partition[int(np.argmax(gains))]
        promise = distance
        if self.rule == "diagonal":
            bound = self.model.diagonal
            promise = separable_gains(coef, gradient, self._strength, bound, self._positive)
        if self.blocks == "forest":
            return forest_block(np.argsort(-promise, kind="stable"), self.model.hessian)
        return np.flatnonzero(top_k_mask(promise, self.size))

    def _blind(self, width: int) -> np.ndarray:
        """Return the block of a rule that does not look at the gradient."""
        if self.blocks == "variable":
            if self.rule == "random":
                return np.sort(self._random.choice(width, self.size, replace=False))
            return np.sort((self._turn * self.size + np.arange(self.size)) % width)
        if self.blocks == "forest" and self.rule == "random":
            return forest_block(self._random.permutation(width), self.model.hessian)
        count = len(self.partition)
        turn = int(self._random.integers(count)) if self.rule == "random" else self._turn % count
        return self.partition[turn]

    def _block_gains(
        self, coef: np.ndarray, gradient: np.ndarray, distance: np.ndarray
    ) -> np.ndarray:
        """Return what each fixed block promises by a greedy rule."""
        state = (coef, gradient, self._strength)
        if self.rule == "quadratic":
            index = np.full((len(self.partition), self.size), -1)
            index[np.arange(self.size) < np.array([[len(b)] for b in self.partition])] = (
                np.concatenate(self.partition)
            )
            w, g, strength = (np.where(index >= 0, values[index], 0.0) for values in state)
            return quadratic_gains(w, g, strength, self._hessians(), self._positive)
        sizes = [len(block) for block in self.partition]
        member = np.empty(len(coef), dtype=int)
        member[np.concatenate(self.partition)] = np.repeat(np.arange(len(sizes)), sizes)
        if self.rule == "gauss-southwell":
            promise = distance.astype(float) ** 2
        else:
            bound = self.model.diagonal
            if self.rule == "lipschitz":
                bound = np.linalg.eigvalsh(self._hessians())[:, -1][member]
            promise = separable_gains(*state, bound, self._positive)
        return np.bincount(member, promise, len(sizes))

    def _hessians(self) -> np.ndarray:
        """Return the Hessian of every fixed block, computed once for one model."""
        if self._kept is None:
            self._kept = self.model.block_hessians(self.partition)
        return self._kept

    @cached_property
    def partition(self) -> list[np.ndarray]:
        """The blocks where they are fixed, or are forests that take turns."""
        if self.blocks == "forest":
            return forest_partition(self.model.hessian)
        # Coordinates of like curvature together: the Lipschitz constant of a block, which is its
        # largest, then says something about all of it.
        order = np.argsort(-self.model.diagonal, kind="stable")
        return [np.sort(b) for b in np.split(order, range(self.size, len(order), self.size))]

    @property
    def _positive(self) -> bool:
        return bool(self.problem.penalty.positive)  # type: ignore[attr-defined]

    @property
    def _strength(self) -> np.ndarray:
        strength = self.problem.penalty.strength  # type: ignore[attr-defined]
        return np.broadcast_to(np.asarray(strength, dtype=float), self.problem.coef_shape)


class _Model:
    """The quadratic model of the loss at one point, each part computed when it is asked for."""

    def __init__(self, problem: Problem, prediction: np.ndarray) -> None:
        self.problem = problem
        self.weight = sample_curvature(problem, prediction)

    @cached_property
    def diagonal(self) -> np.ndarray:
        """Second derivative along each coordinate."""
        moments = self.problem.design.moments(self.weight, self.problem.intercept)
        return moments[1].astype(float)

    @cached_property
    def hessian(self) -> sparse.csr_array:
        """Second derivatives, sparse; where there is no intercept, which would fill them in."""
        matrix = sparse.csc_array(self.problem.design.matrix).astype(float)
        return sparse.csr_array(matrix.T @ matrix.multiply(self.weight[:, None]))

    @cached_property
    def _quadratic(self) -> Quadratic:
        return Quadratic.weighted(
            self.problem.design, self.weight, self.weight, self.problem.intercept
        )

    def block_hessians(self, partition: list[np.ndarray]) -> np.ndarray:
        """Second derivatives within blocks, of shape (blocks, size, size), padded by zeros."""
        size, rest = len(partition[0]), len(partition[-1])
        result = np.zeros((len(partition), size, size))
        whole = np.arange(len(partition) - (rest < size))
        # Some blocks at a time keeps the copy of their columns small.
        for some in np.array_split(whole, -(-len(whole) * size // 1000)):
            result[some] = grams(self._quadratic, np.array([partition[i] for i in some]))
        result[-1, :rest, :rest] = grams(self._quadratic, partition[-1][None])[0]
        return result


def separable_gains(
    coef: np.ndarray,
    gradient: np.ndarray,
    strength: np.ndarray,
    bound: np.ndarray,
    positive: bool = False,
) -> np.ndarray:
    """Return how far each coordinate alone lowers a separable model plus the L1 norm.

    Parameters
    ----------
    coef, gradient, strength : arrays of shape (p,)
        Coefficients, gradient, and strength of the L1 norm.
    bound : array of shape (p,)
        Curvature of the model along each coordinate.
    positive : bool, default False
        Whether coefficients below zero are excluded.

    Returns
    -------
    array of shape (p,)
        The decrease; ``g^2 / (2 bound)`` where the strength is zero.
    """
    safe = np.where(bound > 0, bound, 1.0)
    step = _shrunk(coef - gradient / safe, strength / safe, positive) - coef
    change = gradient * step + bound / 2 * step**2
    change += strength * (np.abs(coef + step) - np.abs(coef))
    return np.where(bound > 0, -change, 0.0)


def quadratic_gains(
    coef: np.ndarray,
    gradient: np.ndarray,
    strength: np.ndarray,
    hessians: np.ndarray,
    positive: bool = False,
) -> np.ndarray:
    """Return how far each block's quadratic model can be lowered, by descent in all at once.

    Parameters
    ----------
    coef, gradient, strength : arrays of shape (blocks, size)
        Coefficients, gradient, and strength of the L1 norm.
    hessians : array of shape (blocks, size, size)
        Second derivatives within each block.
    positive : bool, default False
        Whether coefficients below zero are excluded.

    Returns
    -------
    array of shape (blocks,)
        The decrease; ``g' H^-1 g / 2`` where the strength is zero.
    """
    moved, slope = coef.copy(), gradient.copy()
    bend = np.einsum("bii->bi", hessians)
    safe = np.where(bend > 0, bend, 1.0)
    gains = np.zeros(len(coef))
    for _ in range(100):
        for j in range(coef.shape[1]):
            target = moved[:, j] - slope[:, j] / safe[:, j]
            change = _shrunk(target, strength[:, j] / safe[:, j], positive) - moved[:, j]
            change = np.where(bend[:, j] > 0, change, 0.0)
            moved[:, j] += change
            slope += hessians[:, :, j] * change[:, None]
        step = moved - coef
        penalty = (strength * (np.abs(moved) - np.abs(coef))).sum(axis=1)
        reached = -((gradient + slope) * step).sum(axis=1) / 2 - penalty
        settled = np.max(reached - gains) <= 1e-3 * np.max(reached)
        gains = reached
        if settled:  # the largest is known well enough to be told from the others
            break
    return gains


def _shrunk(x: np.ndarray, threshold: np.ndarray, positive: bool) -> np.ndarray:
    return soft(np.maximum(x, 0) if positive else x, threshold)


def sample_curvature(problem: Problem, prediction: np.ndarray) -> np.ndarray:
    """Return the second derivative of the loss per sample, kept away from zero.

    Samples that are fitted to saturation have none; a little keeps the models bounded.
    """
    curvature = problem.datafit.curvature(problem.y, prediction, problem.weight)
    return np.maximum(curvature, 1e-8 * max(float(curvature.max()), 1e-300))
