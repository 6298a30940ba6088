"""Penalties that act on each coefficient alone."""

from __future__ import annotations

__all__ = ["L0", "L1", "L1L2", "MCP", "SCAD", "LogSum", "Lq", "NonNegative"]

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...core import prox, prox_nonconvex
from ...core.options import check_number
from .magnitudes import Kind, Separable


@dataclass(frozen=True, repr=False)
class L1(Separable):
    """``alpha * sum_j weights_j |w_j|``: the (weighted, adaptive) Lasso penalty.

    References
    ----------
    Tibshirani, Regression shrinkage and selection via the lasso (1996); Zou, The adaptive
    lasso and its oracle properties (2006), for the weights.
    """

    kind: ClassVar[Kind] = Kind.ELASTIC_NET

    def values(self, magnitude: np.ndarray) -> np.ndarray:
        """Return ``strength * magnitude``."""
        return self.strength * magnitude

    def derivatives(self, magnitude: np.ndarray) -> np.ndarray:
        """Return the strength."""
        return self.strength * np.ones_like(magnitude)

    def threshold(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the soft thresholding of `x`."""
        return prox.soft(x, step * self.strength)


@dataclass(frozen=True, repr=False)
class L1L2(Separable):
    """``alpha * sum_j weights_j |w_j| + ridge / 2 * ||w||^2``: the elastic net penalty.

    Parameters
    ----------
    ridge : float, default 0
        Strength of the squared norm, not negative.

    References
    ----------
    Zou and Hastie, Regularization and variable selection via the elastic net (2005).
    """

    kind: ClassVar[Kind] = Kind.ELASTIC_NET
    ridge: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("ridge", self.ridge)

    @property
    def shape(self) -> float:
        """The ridge."""
        return self.ridge

    def values(self, magnitude: np.ndarray) -> np.ndarray:
        """Return the two terms of each coefficient."""
        return self.strength * magnitude + self.ridge / 2 * magnitude**2

    def derivatives(self, magnitude: np.ndarray) -> np.ndarray:
        """Return ``strength + ridge * magnitude``."""
        return self.strength + self.ridge * magnitude

    def threshold(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the soft thresholding of `x`, shrunk by the ridge."""
        return prox.soft(x, step * self.strength) / (1 + step * self.ridge)

    def scaled(self, factor: float) -> L1L2:
        """Return the penalty with both terms multiplied by `factor`."""
        return type(self)(self.alpha * factor, self.weights, self.positive, self.ridge * factor)


@dataclass(frozen=True, repr=False)
class NonNegative(L1):
    """The constraint ``w >= 0``.

    References
    ----------
    Lawson and Hanson, Solving least squares problems (1974), chapter 23.
    """

    alpha: float = 0.0
    positive: bool = True


@dataclass(frozen=True, repr=False)
class MCP(Separable):
    """Minimax concave penalty.

    Parameters
    ----------
    gamma : float, default 3
        Above 0. Coefficients beyond ``gamma * alpha`` are not shrunk. Where the columns
        have a mean square below ``1 / gamma``, coordinate descent chooses by a threshold
        instead of shrinking.

    References
    ----------
    Zhang, Nearly unbiased variable selection under minimax concave penalty (2010).
    """

    convex: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.MCP
    gamma: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("gamma", self.gamma, above=0.0)

    @property
    def shape(self) -> float:
        """Gamma."""
        return self.gamma

    def values(self, magnitude: np.ndarray) -> np.ndarray:
        """Return the parabola up to ``gamma * strength``, then its constant top."""
        inner = self.strength * magnitude - magnitude**2 / (2 * self.gamma)
        top = self.gamma * self.strength**2 / 2
        return np.where(magnitude <= self.gamma * self.strength, inner, top)

    def derivatives(self, magnitude: np.ndarray) -> np.ndarray:
        """Return ``max(strength - magnitude / gamma, 0)``."""
        return np.maximum(self.strength - magnitude / self.gamma, 0)

    def threshold(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the firm thresholding of `x`."""
        return prox_nonconvex.mcp(x, step, self.strength, self.gamma)


@dataclass(frozen=True, repr=False)
class SCAD(Separable):
    """Smoothly clipped absolute deviation.

    Parameters
    ----------
    gamma : float, default 3.7
        Above 1; the value the authors suggest.

    References
    ----------
    Fan and Li, Variable selection via nonconcave penalized likelihood and its oracle
    properties (2001).
    """

    convex: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.SCAD
    gamma: float = 3.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("gamma", self.gamma, above=1.0)

    @property
    def shape(self) -> float:
        """Gamma."""
        return self.gamma

    def values(self, magnitude: np.ndarray) -> np.ndarray:
        """Return the linear, quadratic and constant pieces."""
        a, g = self.strength, self.gamma
        middle = (2 * g * a * magnitude - magnitude**2 - a**2) / (2 * (g - 1))
        outer = np.where(magnitude <= g * a, middle, a**2 * (g + 1) / 2)
        return np.where(magnitude <= a, a * magnitude, outer)

    def derivatives(self, magnitude: np.ndarray) -> np.ndarray:
        """Return the strength, falling linearly to zero at ``gamma * strength``."""
        a, g = self.strength, self.gamma
        return np.clip((g * a - magnitude) / (g - 1), 0, a)

    def threshold(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the best of the stationary points of the three pieces."""
        return prox_nonconvex.scad(x, step, self.strength, self.gamma)


@dataclass(frozen=True, repr=False)
class LogSum(Separable):
    """``alpha * sum_j log(1 + |w_j| / epsilon)``.

    Parameters
    ----------
    epsilon : float, default 1
        Positive; the smaller, the closer to counting.

    References
    ----------
    Candès, Wakin and Boyd, Enhancing sparsity by reweighted l1 minimization (2008).
    """

    convex: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.LOG_SUM
    epsilon: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("epsilon", self.epsilon, above=0.0)

    @property
    def shape(self) -> float:
        """Epsilon."""
        return self.epsilon

    @property
    def slope_at_zero(self) -> Any:
        """``strength / epsilon``."""
        return self.strength / self.epsilon

    def values(self, magnitude: np.ndarray) -> np.ndarray:
        """Return ``strength * log(1 + magnitude / epsilon)``."""
        return self.strength * np.log1p(magnitude / self.epsilon)

    def derivatives(self, magnitude: np.ndarray) -> np.ndarray:
        """Return ``strength / (magnitude + epsilon)``."""
        return self.strength / (magnitude + self.epsilon)

    def threshold(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the larger stationary point where it beats zero."""
        return prox_nonconvex.log_sum(x, step, self.strength, self.epsilon)


@dataclass(frozen=True, repr=False)
class Lq(Separable):
    """``alpha * sum_j |w_j|^q`` with ``0 < q < 1``.

    Parameters
    ----------
    q : float, default 0.5
        The power.

    References
    ----------
    Frank and Friedman, A statistical view of some chemometrics regression tools (1993).
    """

    convex: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.LQ
    q: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("q", self.q, above=0.0, below=1.0)

    @property
    def shape(self) -> float:
        """The power."""
        return self.q

    @property
    def slope_at_zero(self) -> Any:
        """Infinite: zero is always a local minimum."""
        return np.where(np.asarray(self.strength) > 0, np.inf, 0.0)

    def values(self, magnitude: np.ndarray) -> np.ndarray:
        """Return ``strength * magnitude^q``."""
        return self.strength * magnitude**self.q

    def derivatives(self, magnitude: np.ndarray) -> np.ndarray:
        """Return ``strength * q * magnitude^(q - 1)``."""
        return self.strength * self.q * magnitude ** (self.q - 1)

    def threshold(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the larger stationary point where it beats zero."""
        return prox_nonconvex.lq(x, step, self.strength, self.q)


@dataclass(frozen=True, repr=False)
class L0(Separable):
    """``alpha`` times the number of non-zero coefficients.

    References
    ----------
    Blumensath and Davies, Iterative thresholding for sparse approximations (2008).
    """

    convex: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.L0

    @property
    def slope_at_zero(self) -> Any:
        """Infinite: zero is always a local minimum."""
        return np.where(np.asarray(self.strength) > 0, np.inf, 0.0)

    def values(self, magnitude: np.ndarray) -> np.ndarray:
        """Return the strength where the magnitude is not zero."""
        return self.strength * (magnitude > 0)

    def derivatives(self, magnitude: np.ndarray) -> np.ndarray:
        """Return zeros."""
        return np.zeros_like(magnitude)

    def threshold(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the hard thresholding of `x` at ``sqrt(2 * step * strength)``."""
        return prox.hard(x, np.sqrt(2 * step * np.asarray(self.strength)))
