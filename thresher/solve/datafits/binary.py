"""Losses of two classes, -1 and +1, by their margin: the prediction times the class."""

from __future__ import annotations

__all__ = ["Binary", "Probit", "SquaredHinge"]

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from ...core.errors import DataError
from .base import Datafit

# Beyond this margin the curvature of the probit loss is one to all digits that its formula keeps.
_FAR = -1e4


class Binary(Datafit):
    """A loss of two classes."""

    def check_target(self, y: np.ndarray) -> None:
        """Raise DataError unless every target is -1 or +1."""
        if not np.all(np.abs(y) == 1):
            raise DataError(f"the loss {type(self).__name__} needs targets -1 and +1")

    def degeneracy(self, y: np.ndarray, weight: np.ndarray, intercept: bool) -> str | None:
        """Say that all samples that count are of one class, which a constant tells."""
        counted = y[weight > 0]
        if intercept and np.all(counted == counted[0]):
            return f"all samples that weigh something are of one class, {counted[0]:+.0f}"
        return None


@dataclass(frozen=True)
class Probit(Binary):
    """Weighted mean of ``-log Phi(y z)`` for targets -1 and +1, with the normal distribution Phi.

    References
    ----------
    Bliss, The method of probits (1934).
    """

    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return the weighted mean loss."""
        return float(weight @ -log_ndtr(y * prediction))

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return minus the density over the probability of the class, signed and weighted."""
        return -weight * y * _inverse_mills(y * prediction)

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the second derivative, between zero and the weight."""
        margin = y * prediction
        ratio = _inverse_mills(margin)
        return weight * np.where(margin < _FAR, 1.0, ratio * (ratio + margin))


@dataclass(frozen=True)
class SquaredHinge(Binary):
    """Weighted mean of ``max(1 - y z, 0)^2`` for targets -1 and +1: linear support vectors.

    References
    ----------
    Chang, Hsieh and Lin, Coordinate descent method for large-scale L2-loss linear support vector
    machines (2008).
    """

    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return the weighted mean loss."""
        return float(weight @ np.maximum(1 - y * prediction, 0) ** 2)

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return minus twice what a margin lacks of one, signed and weighted."""
        return -2 * weight * y * np.maximum(1 - y * prediction, 0)

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return twice the weight where the margin is below one."""
        return 2 * weight * (y * prediction < 1)


def _inverse_mills(margin: np.ndarray) -> np.ndarray:
    """Return the normal density over the distribution."""
    return np.exp(-(margin**2) / 2 - np.log(2 * np.pi) / 2 - log_ndtr(margin))
