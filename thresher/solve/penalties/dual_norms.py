"""Dual norms: by what the slope of a loss must be divided for the conjugate of a penalty."""

from __future__ import annotations

__all__ = ["Feasible", "blocks_with_l1", "l1_like", "largest", "sorted_l1"]

from typing import Any, NamedTuple

import numpy as np


class Feasible(NamedTuple):
    """How a gradient becomes a point at which the conjugate of a penalty is finite.

    Parameters
    ----------
    shrink : float or array
        What the gradient is to be divided by, the least number from one on.
    price : float or array
        The conjugate at minus the divided gradient: what the penalty adds to the duality gap.
    """

    shrink: Any
    price: Any = 0.0


def l1_like(pull: np.ndarray, strength: np.ndarray | float, ridge: np.ndarray) -> Feasible:
    """Make gradients feasible for ``sum_b strength_b |w_b| + ridge / 2 ||w||^2``.

    Parameters
    ----------
    pull : array of shape (..., blocks)
        Norms of the gradient, block by block.
    strength : float or array that broadcasts against `pull`
        Factors of the norms, not negative. A block without one must have no pull, unless there
        is a ridge.
    ridge : array of shape (...)
        Factor of half the squared norm; where it is positive, every slope is feasible.
    """
    ratio = np.divide(pull, strength, where=np.asarray(strength) > 0, out=np.zeros(pull.shape))
    shrink = np.where(ridge > 0, 1.0, np.max(ratio, axis=-1, initial=1.0))
    if not np.any(ridge):
        return Feasible(shrink, np.zeros_like(shrink))
    excess = np.maximum(pull - strength, 0)
    price = np.sum(excess**2, axis=-1) / np.where(ridge > 0, 2 * ridge, np.inf)
    return Feasible(shrink, price)


def sorted_l1(gradient: np.ndarray, levels: np.ndarray) -> Feasible:
    """Make a gradient feasible for ``sum_i levels_i |w|_(i)``, largest magnitudes first.

    The dual norm is the largest ratio of the sum of the k largest magnitudes to that of the k
    first levels (Bogdan et al., SLOPE, 2015, proposition 1.1).

    Parameters
    ----------
    gradient : array of shape (p,)
        The gradient.
    levels : array of shape (p,)
        Not increasing and not negative, the first positive.
    """
    falling = np.sort(np.abs(gradient))[::-1]
    return Feasible(largest(np.cumsum(falling) / np.cumsum(levels)))


def largest(ratios: np.ndarray) -> float:
    """Return the largest of some ratios of what is to what may be, one if all are smaller."""
    return float(np.max(ratios, initial=1.0))


def blocks_with_l1(penalty: Any, gradient: np.ndarray) -> float:
    """Return by what a gradient must be divided for ``l1 ||w||_1 + sum_b strength_b ||w_b||_2``.

    That is the largest root `s` over the blocks of ``||soft(g_b, s l1)||_2 = s strength_b``
    (Ndiaye, Fercoq, Gramfort and Salmon, Gap safe screening rules for sparsity enforcing
    penalties, 2017, section 5.3). Both sides' difference is convex in `s`, so that Newton's
    method from the left rises to the root without passing it.

    Parameters
    ----------
    penalty : Grouped or Rows
        With an L1 term.
    gradient : array of the shape of the coefficients
        The gradient.
    """
    size, strength = np.abs(gradient), np.asarray(penalty.radial.strength)
    shrink = 1.0
    for _ in range(100):
        inside = np.maximum(size - shrink * penalty.l1, 0)
        norms = penalty.norms(inside)
        sums = penalty.norms(np.sqrt(inside)) ** 2
        fall = penalty.l1 * sums / np.where(norms > 0, norms, 1.0) + strength
        excess = np.where(norms > 0, norms - shrink * strength, 0.0)
        step = float(np.max(excess / np.where(fall > 0, fall, 1.0), initial=0.0))
        if step <= 4 * np.finfo(float).eps * shrink:
            break
        shrink += step
    return shrink
