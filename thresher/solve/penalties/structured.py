"""Convex penalties that couple all coefficients; the proximal gradient solver takes them."""

from __future__ import annotations

__all__ = ["KSupport", "L1LInf", "LInf", "Slope", "TotalVariation"]

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ...core import prox, prox_norms
from ...core.errors import OptionError
from ...core.options import check_number, check_whole
from .. import _solve
from .base import Coupled
from .dual_norms import Feasible, largest, sorted_l1


@dataclass(frozen=True)
class Slope(Coupled):
    """Sorted L1 norm ``alpha * sum_i lambdas_i |w|_(i)``, largest magnitudes first.

    Parameters
    ----------
    alpha : float, default 1
        Strength.
    lambdas : array of shape (p,), optional
        Non-negative, not increasing. Linearly falling from 1 by default, which makes the
        norm an OSCAR penalty.

    References
    ----------
    Bogdan, van den Berg, Sabatti, Su and Candès, SLOPE: adaptive variable selection via
    convex optimization (2015).
    """

    lambdas: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lambdas is not None:
            lambdas = np.asarray(self.lambdas, dtype=float)
            if lambdas.ndim != 1 or lambdas.min() < 0 or np.any(np.diff(lambdas) > 0):
                raise OptionError("lambdas must be a vector, not negative and not increasing")
            object.__setattr__(self, "lambdas", lambdas)

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Say why coefficients of a shape are not taken; None if they are."""
        if self.lambdas is not None and len(self.lambdas) != shape[0]:
            return f"lambdas has {len(self.lambdas)} entries for {shape[0]} coefficients"
        return super().refusal(shape)

    def _levels(self, size: int) -> np.ndarray:
        if self.lambdas is None:
            return self.alpha * np.linspace(1.0, 1.0 / size, size)
        return self.alpha * self.lambdas

    def value(self, coef: np.ndarray) -> float:
        """Return the sorted L1 norm."""
        return float(self._levels(coef.size) @ np.sort(np.abs(coef))[::-1])

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the prox by pooling adjacent violators."""
        return prox_norms.slope(x, step * self._levels(x.size))

    def feasible(self, gradient: np.ndarray) -> Feasible | None:
        """Make a gradient feasible by the sums of its largest magnitudes."""
        levels = self._levels(gradient.size)
        return sorted_l1(gradient, levels) if levels[0] > 0 else None


@dataclass(frozen=True)
class LInf(Coupled):
    """``alpha * max_j |w_j|``: spreads the weight evenly instead of concentrating it."""

    def value(self, coef: np.ndarray) -> float:
        """Return ``alpha`` times the largest magnitude."""
        return self.alpha * float(np.max(np.abs(coef)))

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return `x` clipped to a common magnitude."""
        return prox_norms.l_inf(x, step * self.alpha)

    def feasible(self, gradient: np.ndarray) -> Feasible | None:
        """Make a gradient feasible by its L1 norm."""
        if self.alpha == 0:
            return None
        return Feasible(largest(np.sum(np.abs(gradient)) / self.alpha))


@dataclass(frozen=True)
class L1LInf(Coupled):
    """``alpha * (l1_ratio * ||w||_1 + (1 - l1_ratio) * max|w|)``.

    Parameters
    ----------
    alpha : float, default 1
        Strength, not negative.
    l1_ratio : float, default 0
        Share of the L1 norm, from 0 to 1.

    Raises
    ------
    OptionError
        If a parameter is out of range.
    """

    l1_ratio: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("l1_ratio", self.l1_ratio, most=1.0)

    def value(self, coef: np.ndarray) -> float:
        """Return the weighted sum of the two norms."""
        size = np.abs(coef)
        return self.alpha * float(self.l1_ratio * size.sum() + (1 - self.l1_ratio) * size.max())

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the soft-thresholded vector, clipped to a common magnitude.

        The two proxes compose, as clipping keeps the signs that a subgradient of the L1 norm
        depends on (Yu, On decomposing the proximal map, 2013, theorem 1).
        """
        strength = step * self.alpha
        shrunk = prox.soft(x, strength * self.l1_ratio)
        return prox_norms.l_inf(shrunk, strength * (1 - self.l1_ratio))

    def feasible(self, gradient: np.ndarray) -> Feasible | None:
        """Make a gradient feasible as for the sorted L1 norm that this is.

        Its levels are `alpha` for the largest magnitude, ``alpha * l1_ratio`` for the others.
        """
        if self.alpha == 0:
            return None
        levels = np.full(gradient.size, self.alpha * self.l1_ratio)
        levels[0] = self.alpha
        return sorted_l1(gradient, levels)


@dataclass(frozen=True)
class KSupport(Coupled):
    """``alpha / 2`` times the squared k-support norm, the convex envelope of "k-sparse".

    Parameters
    ----------
    alpha : float, default 1
        Strength.
    k : int, default 1
        With 1 the norm is the L1 norm, with p the Euclidean norm.

    References
    ----------
    Argyriou, Foygel and Srebro, Sparse prediction with the k-support norm (2012).
    """

    k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("k", self.k)

    def value(self, coef: np.ndarray) -> float:
        """Return the penalty through ``min sum(w^2 / theta)``."""
        shares = prox_norms.k_support_shares(coef, 0.0, min(self.k, coef.size))
        kept = shares > 0
        return self.alpha / 2 * float(np.sum(coef[kept] ** 2 / shares[kept]))

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the proximal point."""
        return prox_norms.k_support(x, step * self.alpha, min(self.k, x.size))

    def feasible(self, gradient: np.ndarray) -> Feasible | None:
        """Leave the gradient as it is: the conjugate sums the squares of the k largest entries."""
        if self.alpha == 0:
            return None
        squares = np.sort(gradient**2)[::-1]
        return Feasible(1.0, float(squares[: self.k].sum()) / (2 * self.alpha))


@dataclass(frozen=True)
class TotalVariation(Coupled):
    """``alpha * sum_j |w_{j+1} - w_j|``: piecewise constant coefficients.

    Parameters
    ----------
    alpha : float, default 1
        Strength.
    positive : bool, default False
        Whether coefficients below zero are excluded.

    References
    ----------
    Rudin, Osher and Fatemi, Nonlinear total variation based noise removal algorithms (1992);
    the prox is the taut string of Davies and Kovac, Local extremes, runs, strings and
    multiresolution (2001). Clipping it at zero is the prox with the sign constraint, because
    the taut string of a clipped signal is the clipped taut string.
    """

    positive: bool = False

    def value(self, coef: np.ndarray) -> float:
        """Return the sum of the absolute differences, infinite at an excluded point."""
        if self.positive and np.any(coef < 0):
            return np.inf
        return self.alpha * float(np.sum(np.abs(np.diff(coef))))

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the taut string through the tube of radius ``step * alpha``."""
        out = np.empty(x.shape, dtype=float)
        _solve.total_variation(np.ascontiguousarray(x, dtype=float), step * self.alpha, out)
        return np.maximum(out, 0) if self.positive else out

    def free_directions(self, shape: tuple[int, ...]) -> sparse.csc_array:
        """Return the constant vector."""
        return sparse.csc_array(np.ones((shape[0], 1)))

    def feasible(self, gradient: np.ndarray) -> Feasible | None:
        """Make a gradient feasible by its cumulative sums, unless signs are constrained."""
        if self.alpha == 0 or self.positive:
            return None
        return Feasible(largest(np.abs(np.cumsum(gradient)[:-1]) / self.alpha))

    def generalized_support(self, coef: np.ndarray) -> np.ndarray:
        """Return every coefficient: none is pulled to zero."""
        return np.ones(coef.shape, dtype=bool)
