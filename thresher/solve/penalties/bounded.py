"""The elastic net with every coefficient kept between two bounds."""

from __future__ import annotations

__all__ = ["Bounded"]

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ...core import prox
from ...core.errors import OptionError
from ...core.options import check_number
from .magnitudes import Kind, Separable


@dataclass(frozen=True, repr=False)
class Bounded(Separable):
    """``alpha * sum_j weights_j |w_j| + ridge / 2 * ||w||^2`` where ``lower <= w <= upper``.

    Parameters
    ----------
    positive : bool, default False
        Whether coefficients below zero are excluded as well.
    ridge : float, default 0
        Strength of the squared norm, not negative.
    lower, upper : float or array of shape (p,), default minus and plus infinity
        What coefficients are kept between: zero must be allowed.

    Raises
    ------
    OptionError
        If a bound is not a number, excludes zero, or `alpha`, `ridge` or a weight is negative.

    References
    ----------
    Friedman, Hastie and Tibshirani, Regularization paths for generalized linear models via
    coordinate descent (2010), whose descent meets bounds by cutting each step off at them.
    """

    kind: ClassVar[Kind] = Kind.ELASTIC_NET
    of_norms: ClassVar[bool] = False
    is_l1_like: ClassVar[bool] = False  # type: ignore[assignment, misc]
    ridge: float = 0.0
    lower: Any = -np.inf
    upper: Any = np.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("ridge", self.ridge)
        for name, sign in (("lower", -1.0), ("upper", 1.0)):
            try:
                bound = np.asarray(getattr(self, name), dtype=float)
            except (TypeError, ValueError):
                bound = np.asarray(np.nan)
            if bound.ndim > 1 or not np.all(sign * bound >= 0):
                side = "at most" if sign < 0 else "at least"
                raise OptionError(
                    f"the {name} bound of coefficients must be a number of {side} 0, or a vector "
                    f"of such, got {getattr(self, name)!r}; zero must be allowed"
                )
            if self.positive and sign < 0:
                bound = np.maximum(bound, 0.0)
            object.__setattr__(self, name, bound if bound.ndim else float(bound))

    @property
    def shape(self) -> float:
        """The ridge."""
        return self.ridge

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Say why coefficients of a shape are not taken; None if they are."""
        for name in ("lower", "upper"):
            bound = np.asarray(getattr(self, name))
            if bound.ndim and bound.shape != shape:
                return f"{name} has shape {bound.shape}, the coefficients have {shape}"
        return super().refusal(shape)

    def values(self, magnitude: np.ndarray) -> np.ndarray:
        """Return the two terms of each coefficient."""
        return self.strength * magnitude + self.ridge / 2 * magnitude**2

    def derivatives(self, magnitude: np.ndarray) -> np.ndarray:
        """Return ``strength + ridge * magnitude``."""
        return self.strength + self.ridge * magnitude

    def threshold(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the soft thresholding of `x`, shrunk by the ridge and cut off at the bounds."""
        shrunk = prox.soft(x, step * self.strength) / (1 + step * self.ridge)
        return np.clip(shrunk, self.lower, self.upper)

    def value(self, coef: np.ndarray) -> float:
        """Return the penalty, infinite beyond a bound."""
        lower, upper = self._bounds(coef)
        if np.any((coef < lower) | (coef > upper)):
            return np.inf
        return super().value(coef)

    def pull(self, gradient: np.ndarray) -> np.ndarray:
        """Return how much a gradient pulls zeros to where a bound lets them be."""
        up = np.where(np.asarray(self.upper) > 0, np.maximum(-gradient, 0), 0.0)
        down = np.where(np.asarray(self.lower) < 0, np.maximum(gradient, 0), 0.0)
        return np.maximum(up, down)

    def subdifferential_distance(
        self, coef: np.ndarray, gradient: np.ndarray, curvature: float = 1.0
    ) -> np.ndarray:
        """Return the distance of ``-gradient`` from the subdifferential, per coefficient."""
        distance = super().subdifferential_distance(coef, gradient, curvature)
        lower, upper = self._bounds(coef)
        slope = gradient + np.sign(coef) * self.derivatives(np.abs(coef))
        distance = np.where((coef > 0) & (coef >= upper), np.maximum(slope, 0), distance)
        distance = np.where((coef < 0) & (coef <= lower), np.maximum(-slope, 0), distance)
        return np.where((coef < lower) | (coef > upper), np.inf, distance)

    def scaled(self, factor: float) -> Bounded:
        """Return the penalty with both terms multiplied by `factor`, its bounds as they are."""
        return replace(self, alpha=self.alpha * factor, ridge=self.ridge * factor)

    def restricted(self, columns: np.ndarray) -> Bounded:
        """Return the penalty of the coefficients `columns`."""
        parts = {
            name: np.asarray(value)[columns]
            for name in ("weights", "lower", "upper")
            if np.ndim(value := getattr(self, name))
        }
        return replace(self, **parts)

    def bounds_of(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what coefficients are kept between."""
        return np.broadcast_to(self.lower, (count,)), np.broadcast_to(self.upper, (count,))

    def _bounds(self, coef: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds as the descents round them to the precision of the coefficients."""
        return np.asarray(self.lower, dtype=coef.dtype), np.asarray(self.upper, dtype=coef.dtype)
