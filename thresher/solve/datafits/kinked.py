"""Losses that are absolute values: robust to gross errors, and without a derivative at their kink.

Only :class:`~thresher.solve.solvers.stochastic_models.StochasticModels` takes them. For least
absolute deviations with any solver see
:class:`~thresher.solve.datafits.regression.SmoothQuantile`.
"""

from __future__ import annotations

__all__ = ["AbsoluteError", "IntensityError", "Kinked"]

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Datafit


class Kinked(Datafit):
    """Weighted mean of ``|c(z) - y|`` for a smooth inner function `c` of the prediction."""

    smooth: ClassVar[bool] = False
    bounded_curvature: ClassVar[bool] = False

    @abstractmethod
    def inner(self, prediction: np.ndarray) -> np.ndarray:
        """Return `c` at each prediction."""

    @abstractmethod
    def inner_slope(self, prediction: np.ndarray) -> np.ndarray:
        """Return the derivative of `c` at each prediction."""

    @abstractmethod
    def nearest(self, target: float, prediction: float, length: float) -> float:
        """Return ``argmin_z |c(z) - target| + (z - prediction)^2 / (2 length)``."""

    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return the weighted mean."""
        return float(weight @ np.abs(self.inner(prediction) - y))

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return a subgradient: the derivative, with zero at the kink."""
        return weight * np.sign(self.inner(prediction) - y) * self.inner_slope(prediction)

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return infinity, the only bound there is."""
        return np.full_like(prediction, np.inf, dtype=float)


@dataclass(frozen=True)
class AbsoluteError(Kinked):
    """Weighted mean of ``|z - y|``: least absolute deviations."""

    shift_equivariant: ClassVar[bool] = True

    def inner(self, prediction: np.ndarray) -> np.ndarray:
        """Return the prediction."""
        return prediction

    def inner_slope(self, prediction: np.ndarray) -> np.ndarray:
        """Return ones."""
        return np.ones_like(prediction)

    def nearest(self, target: float, prediction: float, length: float) -> float:
        """Return the prediction, moved towards the target by at most `length`."""
        return prediction - np.clip(prediction - target, -length, length)


@dataclass(frozen=True)
class IntensityError(Kinked):
    """Weighted mean of ``|z^2 - y|``: robust phase retrieval.

    References
    ----------
    Duchi and Ruan, Solving (most) of a set of quadratic equalities: composite optimization
    for robust phase retrieval (2019).
    """

    def inner(self, prediction: np.ndarray) -> np.ndarray:
        """Return the squared prediction."""
        return prediction**2

    def inner_slope(self, prediction: np.ndarray) -> np.ndarray:
        """Return twice the prediction."""
        return 2 * prediction

    def nearest(self, target: float, prediction: float, length: float) -> float:
        """Return the best of the two parabolas and the root of the target between them."""
        root = np.sqrt(max(target, 0.0))
        sign = 1.0 if prediction >= 0 else -1.0
        size = abs(prediction)
        outer = size / (1 + 2 * length)  # where z^2 - target is minimised
        if outer >= root:
            return sign * outer
        # From inside, target - z^2 is convex enough to hold the point only for short lengths.
        inner = size / (1 - 2 * length) if 2 * length < 1 else np.inf
        return sign * min(inner, root)
