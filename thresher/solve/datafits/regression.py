"""Losses for real targets."""

from __future__ import annotations

__all__ = ["Huber", "MultiTaskSquares", "SmoothQuantile", "SquareRoot", "Squares"]

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ...core.errors import NumericalError
from ...core.options import check_number
from .base import Datafit

_WIDTH = 0.1  # of the rounded part of a quantile loss, relative to the spread of residuals


@dataclass(frozen=True)
class Squares(Datafit):
    """Half the weighted mean of the squared residuals."""

    quadratic: ClassVar[bool] = True
    shift_equivariant: ClassVar[bool] = True

    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return half the weighted mean square."""
        return float(weight @ (y - prediction) ** 2) / 2

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the weighted residuals, negated."""
        return weight * (prediction - y)

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the weights."""
        return weight

    def conjugate(self, y: np.ndarray, dual: np.ndarray, weight: np.ndarray) -> float:
        """Return ``sum(dual^2 / weight) / 2 + dual @ y``."""
        used = weight > 0
        return float(np.sum(dual[used] ** 2 / weight[used])) / 2 + float(dual @ y)


@dataclass(frozen=True)
class MultiTaskSquares(Datafit):
    """Half the weighted mean of the squared residuals, summed over the tasks."""

    quadratic: ClassVar[bool] = True
    shift_equivariant: ClassVar[bool] = True
    multiple_outputs: ClassVar[bool] = True

    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return half the weighted mean of the squared row norms."""
        return float(np.sum(weight[:, None] * (y - prediction) ** 2)) / 2

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the weighted residuals, negated."""
        return weight[:, None] * (prediction - y)

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the weights."""
        return weight

    def score(
        self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray, null: np.ndarray | None
    ) -> float:
        """Return the mean of the tasks' shares, so that no unit weighs more than another."""
        null = y if null is None else null
        tasks = zip(y.T, prediction.T, null.T, strict=True)
        scores = [Squares().score(own, found, weight, best) for own, found, best in tasks]
        return float(np.mean(scores))

    def conjugate(self, y: np.ndarray, dual: np.ndarray, weight: np.ndarray) -> float:
        """Return that of the squares, summed over the tasks."""
        tasks = zip(y.T, dual.T, strict=True)
        return float(sum(Squares().conjugate(target, task, weight) for target, task in tasks))


@dataclass(frozen=True)
class Huber(Datafit):
    """Squares up to a residual of `delta`, linear beyond.

    Parameters
    ----------
    delta : float, default 1.35
        In the unit of the target; the default keeps 95 % efficiency for unit normal noise.

    References
    ----------
    Huber, Robust estimation of a location parameter (1964).
    """

    shift_equivariant: ClassVar[bool] = True
    delta: float = 1.35

    def __post_init__(self) -> None:
        check_number("delta", self.delta, above=0.0)

    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return the weighted mean loss."""
        size = np.abs(y - prediction)
        inner = np.minimum(size, self.delta)
        return float(weight @ (inner * (size - inner / 2)))

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the clipped residuals, negated and weighted."""
        return weight * np.clip(prediction - y, -self.delta, self.delta)

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the curvature of the parabola that touches the loss from above."""
        return weight * self.delta / np.maximum(np.abs(y - prediction), self.delta)

    def conjugate(self, y: np.ndarray, dual: np.ndarray, weight: np.ndarray) -> float:
        """Return that of the squares, where no dual entry exceeds ``delta * weight``."""
        if np.any(np.abs(dual) > self.delta * weight * (1 + 1e-12)):
            return np.inf
        return Squares().conjugate(y, dual, weight)

    def dual_gauge(self, dual: np.ndarray, weight: np.ndarray) -> float:
        """Return the largest ratio to ``delta * weight``."""
        used = weight > 0
        return float(np.max(np.abs(dual[used]) / (self.delta * weight[used]), initial=1.0))


@dataclass(frozen=True)
class SmoothQuantile(Datafit):
    """Pinball loss of a quantile, with its kink rounded by a parabola.

    Parameters
    ----------
    quantile : float, default 0.5
        Between 0 and 1.
    width : float, optional
        Half-width of the rounded part, in the unit of the target. The loss differs from the
        pinball loss by at most ``width / 4``. By default a tenth of the interquartile range of
        the residuals: a fit begins with that of the target, and is repeated with less until it
        is no more than twice that.

    References
    ----------
    Koenker and Bassett, Regression quantiles (1978); Zheng, Gradient descent algorithms for
    quantile regression with smooth approximation (2011).
    """

    shift_equivariant: ClassVar[bool] = True
    quantile: float = 0.5
    width: float | None = None
    #: Whether the width follows the residuals.
    adaptive: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        check_number("quantile", self.quantile, above=0.0, below=1.0)
        if self.width is not None:
            check_number("width", self.width, above=0.0)

    def in_units(self, y: np.ndarray, weight: np.ndarray) -> SmoothQuantile:
        """Return the loss with a width of a tenth of the target's interquartile range."""
        if self.width is not None:
            return self
        return self._following(_WIDTH * _spread(y, weight))

    def sharpened(
        self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray
    ) -> SmoothQuantile | None:
        """Return the loss of a width that suits the residuals, None if this one does."""
        width = _WIDTH * _spread(y - prediction, weight)
        if not self.adaptive or self._half <= 2 * width or width < 1e-6 * self._half:
            return None  # a fit that is all but perfect has no quantiles to tell apart
        return self._following(width)

    def _following(self, width: float) -> SmoothQuantile:
        loss = SmoothQuantile(self.quantile, width)
        object.__setattr__(loss, "adaptive", True)
        return loss

    @property
    def exact(self) -> SmoothQuantile:
        """The pinball loss, but for a millionth of the width; itself if that was given."""
        return SmoothQuantile(self.quantile, 1e-6 * self._half) if self.adaptive else self

    @property
    def _half(self) -> float:
        return 1.0 if self.width is None else self.width

    # The pinball loss is half the absolute residual plus a tilt; only the first has a kink.
    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return the weighted mean loss."""
        residual = y - prediction
        size = np.abs(residual)
        rounded = np.where(size < self._half, (self._half + size**2 / self._half) / 2, size)
        return float(weight @ (rounded / 2 + (self.quantile - 0.5) * residual))

    def saturated(self, y: np.ndarray, weight: np.ndarray) -> float:
        """Return the loss at the bottom of the parabola."""
        return self._half * self.quantile * (1 - self.quantile) * float(weight.sum())

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the derivative, a line between ``quantile - 1`` and ``quantile``, negated."""
        residual = np.clip((y - prediction) / self._half, -1, 1)
        return -weight * (residual / 2 + self.quantile - 0.5)

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the curvature of the parabola that touches the loss from above."""
        return weight / (2 * np.maximum(np.abs(y - prediction), self._half))

    def conjugate(self, y: np.ndarray, dual: np.ndarray, weight: np.ndarray) -> float:
        """Return ``dual @ y`` plus that of the rounded pinball, a parabola on an interval.

        With ``t = 1 - 2 quantile - 2 dual / weight`` in [-1, 1] it is ``width (t^2 - 1) / 4``.
        """
        used = weight > 0
        t = 1 - 2 * self.quantile - 2 * dual[used] / weight[used]
        if np.any(np.abs(t) > 1 + 1e-12):
            return np.inf
        return float(dual @ y + weight[used] @ (t**2 - 1) * self._half / 4)

    def dual_gauge(self, dual: np.ndarray, weight: np.ndarray) -> float:
        """Return the largest ratio to the end of the interval on the same side."""
        used = weight > 0
        slope = dual[used] / weight[used]
        ends = np.where(slope > 0, 1 - self.quantile, self.quantile)
        return float(np.max(np.abs(slope) / ends, initial=1.0))


@dataclass(frozen=True)
class SquareRoot(Datafit):
    """Root of the weighted mean squared residual: its penalty does not depend on the noise.

    Raises
    ------
    NumericalError
        From a fit that interpolates the target, where the loss has no derivative; a larger
        penalty avoids it.

    References
    ----------
    Belloni, Chernozhukov and Wang, Square-root lasso: pivotal recovery of sparse signals via
    conic programming (2011).
    """

    bounded_curvature: ClassVar[bool] = False
    shift_equivariant: ClassVar[bool] = True

    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return the root of the weighted mean square."""
        return float(np.sqrt(weight @ (y - prediction) ** 2))

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the weighted residuals over their root mean square, negated.

        A target of zeros fitted by zeros is the minimum; zero is a subgradient there.
        """
        if not np.any(y) and not np.any(prediction):
            return np.zeros_like(weight)
        return weight * (prediction - y) / self._scale(y, prediction, weight)

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the weights over the root mean square, an upper bound."""
        if not np.any(y) and not np.any(prediction):
            return np.where(weight > 0, np.inf, 0.0)
        return weight / self._scale(y, prediction, weight)

    def _scale(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        scale = self.value(y, prediction, weight)
        if scale <= 1e-10 * np.sqrt(weight @ y**2):
            raise NumericalError(
                "the residual of the square-root loss vanished: the fit interpolates the "
                "target, where the loss has no derivative; raise alpha"
            )
        return scale

    def conjugate(self, y: np.ndarray, dual: np.ndarray, weight: np.ndarray) -> float:
        """Return ``dual @ y`` inside the unit ball of the dual norm."""
        used = weight > 0
        if np.sum(dual[used] ** 2 / weight[used]) > 1 + 1e-12:
            return np.inf
        return float(dual @ y)

    def dual_gauge(self, dual: np.ndarray, weight: np.ndarray) -> float:
        """Return the dual norm."""
        used = weight > 0
        return max(float(np.sqrt(np.sum(dual[used] ** 2 / weight[used]))), 1.0)


def _spread(values: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted interquartile range; where that is zero, the mean deviation, or one."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order])
    low, middle, high = values[order][
        np.minimum(np.searchsorted(reached, [0.25, 0.5, 0.75]), len(values) - 1)
    ]
    if high > low:
        return float(high - low)
    deviation = float(weight @ np.abs(values - middle))
    return deviation if deviation > 0 else 1.0
