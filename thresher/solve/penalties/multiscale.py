"""Penalties of signals that are simple at several scales: wavelets and dyadic partitions."""

from __future__ import annotations

__all__ = ["DyadicPartition", "HaarL1", "haar_basis"]

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar

import numpy as np
from scipy import sparse

from ...core import prox
from .base import Coupled
from .dual_norms import Feasible, largest


@lru_cache(maxsize=8)
def haar_basis(size: int) -> tuple[sparse.csr_array, int]:
    """Return the orthonormal Haar wavelets of a length, halved for as long as it is even.

    Parameters
    ----------
    size : int
        Length of the signals.

    Returns
    -------
    basis : csr_array of shape (size, size)
        One wavelet a row: averages over the coarsest scale, then details from coarse to fine.
    coarsest : int
        How many averages there are: the odd factor of `size`.
    """
    details, rest = [], sparse.eye_array(size, format="csr")
    while rest.shape[0] % 2 == 0 and rest.shape[0]:
        details.append((rest[::2] - rest[1::2]) / np.sqrt(2))
        rest = (rest[::2] + rest[1::2]) / np.sqrt(2)
    return sparse.csr_array(sparse.vstack([rest, *reversed(details)])), rest.shape[0]


@dataclass(frozen=True)
class HaarL1(Coupled):
    """``alpha`` times the L1 norm of the Haar wavelet coefficients; averages are free.

    The averages are those of the coarsest scale, one for each odd factor of the length: a
    length that is a power of two has one, an odd length is not penalised at all.

    Parameters
    ----------
    alpha : float, default 1
        Strength, not negative.
    positive : bool, default False
        Whether coefficients below zero are excluded. The prox is then found by accelerated
        projected gradients on its dual, to twelve digits.

    Raises
    ------
    OptionError
        If `alpha` is negative.

    References
    ----------
    Harmany, Marcia and Willett, This is SPIRAL-TAP (2012), on the norm in an orthonormal basis
    with non-negativity; Beck and Teboulle (2009) for the acceleration, O'Donoghue and Candès,
    Adaptive restart for accelerated gradient schemes (2015), for its restart.
    """

    positive: bool = False

    def value(self, coef: np.ndarray) -> float:
        """Return the norm of the details, infinite at an excluded point."""
        if self.positive and np.any(coef < 0):
            return np.inf
        basis, coarsest = haar_basis(len(coef))
        return self.alpha * float(np.abs((basis @ coef)[coarsest:]).sum())

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the inverse transform of the shrunk details, or the dual's solution."""
        x = np.asarray(x, dtype=float)
        basis, coarsest = haar_basis(len(x))
        radius = np.where(np.arange(len(x)) < coarsest, 0.0, step * self.alpha)
        shrunk = np.asarray(basis.T @ prox.soft(basis @ x, radius))
        if not self.positive or np.all(shrunk >= 0):
            return shrunk
        return _positive_prox(x, basis, radius)

    def free_directions(self, shape: tuple[int, ...]) -> sparse.csc_array:
        """Return the averages."""
        basis, coarsest = haar_basis(shape[0])
        return sparse.csc_array(basis[:coarsest].T)

    def feasible(self, gradient: np.ndarray) -> Feasible | None:
        """Make a gradient feasible by its largest detail, unless signs are constrained."""
        if self.alpha == 0 or self.positive:
            return None
        basis, coarsest = haar_basis(len(gradient))
        return Feasible(largest(np.abs((basis @ gradient)[coarsest:]) / self.alpha))

    def generalized_support(self, coef: np.ndarray) -> np.ndarray:
        """Return every coefficient: none is pulled to zero."""
        return np.ones(coef.shape, dtype=bool)


def _positive_prox(x: np.ndarray, basis: sparse.csr_array, radius: np.ndarray) -> np.ndarray:
    """Minimise over f >= 0, through ``max_{|v| <= radius} min_{f >= 0} |f - x|^2/2 + v'Wf``."""
    inverse = basis.T

    def primal(dual: np.ndarray) -> np.ndarray:
        return np.maximum(x - inverse @ dual, 0)

    dual = ahead = np.clip(basis @ x, -radius, radius)  # the solution without the sign
    precision = 1e-12 * float(np.max(np.abs(x)))
    momentum = 1.0
    for _ in range(1000):
        following = np.clip(ahead + basis @ primal(ahead), -radius, radius)
        if np.max(np.abs(following - ahead)) <= precision:
            return primal(following)
        move = following - dual
        if (ahead - following) @ move > 0:  # the momentum points uphill: start it anew
            momentum = 1.0
        larger = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = following + (momentum - 1) / larger * move
        dual, momentum = following, larger
    return primal(dual)


@dataclass(frozen=True)
class DyadicPartition(Coupled):
    """``alpha`` times the number of pieces of the recursive dyadic partition.

    The coefficients are constant on every piece; pieces come from halving the whole again and
    again, so that the best partition is found by pruning the tree from its leaves.

    Parameters
    ----------
    alpha : float, default 1
        Price of a piece, not negative.
    positive : bool, default False
        Whether coefficients below zero are excluded.

    Raises
    ------
    OptionError
        If `alpha` is negative.

    References
    ----------
    Harmany, Marcia and Willett, This is SPIRAL-TAP (2012), on partition-based estimation;
    Willett and Nowak, Multiscale Poisson intensity and density estimation (2007).
    """

    convex: ClassVar[bool] = False
    positive: bool = False

    def value(self, coef: np.ndarray) -> float:
        """Return the price of the fewest pieces on which `coef` is constant."""
        if self.positive and np.any(coef < 0):
            return np.inf
        jumps = np.concatenate([[0], np.cumsum(np.diff(coef) != 0), [0]])
        pieces = np.zeros(0)
        for bounds in reversed(_levels(len(coef))):
            size = np.diff(bounds)
            flat = jumps[np.maximum(bounds[1:] - 1, bounds[:-1])] == jumps[bounds[:-1]]
            split = pieces[::2] + pieces[1::2] if len(pieces) else np.inf
            pieces = np.where(size == 0, 0, np.where(flat, 1, split))
        return self.alpha * float(pieces[0])

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the best piecewise constant vector: every node keeps its mean or its halves."""
        x = np.asarray(x, dtype=float)
        levels = _levels(len(x))
        totals = np.concatenate([[0.0], np.cumsum(x)])
        squares = np.concatenate([[0.0], np.cumsum(x**2)])
        means, splits, best = [], [], np.zeros(0)
        for bounds in reversed(levels):
            size, total = np.diff(bounds), np.diff(totals[bounds])
            mean = total / np.maximum(size, 1)
            if self.positive:
                mean = np.maximum(mean, 0)
            price = np.where(size > 0, step * self.alpha, 0.0)
            whole = (np.diff(squares[bounds]) - 2 * mean * total + size * mean**2) / 2 + price
            halves = best[::2] + best[1::2] if len(best) else np.full(len(size), np.inf)
            splits.append(halves < whole)
            means.append(mean)
            best = np.minimum(whole, halves)
        result = np.empty_like(x)
        reached = np.ones(1, dtype=bool)
        for bounds, mean, split in zip(levels, reversed(means), reversed(splits), strict=True):
            ends = reached & ~split
            inside = np.repeat(ends, np.diff(bounds))
            result[inside] = np.repeat(mean, np.diff(bounds))[inside]
            reached = np.repeat(reached & split, 2)
        return result

    def generalized_support(self, coef: np.ndarray) -> np.ndarray:
        """Return every coefficient: none is pulled to zero."""
        return np.ones(coef.shape, dtype=bool)


def _levels(size: int) -> list[np.ndarray]:
    """Return the bounds of the intervals of every level, from the whole to single entries.

    Halves of an odd interval differ by one; where single entries are halved on, one is empty.
    """
    levels = [np.array([0, size])]
    while np.max(np.diff(levels[-1])) > 1:
        bounds = levels[-1]
        finer = np.empty(2 * len(bounds) - 1, dtype=int)
        finer[::2] = bounds
        finer[1::2] = [(first + last + 1) // 2 for first, last in pairwise(bounds)]
        levels.append(finer)
    return levels
