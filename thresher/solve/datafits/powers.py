"""Losses of positive targets whose variance grows with a power of the mean, with a log link."""

from __future__ import annotations

__all__ = ["Gamma", "Tweedie"]

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...core.errors import DataError
from ...core.options import check_number
from .base import Datafit


@dataclass(frozen=True)
class Gamma(Datafit):
    """Weighted mean of ``z + y exp(-z)``: positive targets of constant relative error.

    Half the deviance of the gamma distribution, up to a constant of the target, with a log link.
    """

    bounded_curvature: ClassVar[bool] = False
    log_link: ClassVar[bool] = True

    def check_target(self, y: np.ndarray) -> None:
        """Raise DataError unless every target is positive."""
        if np.any(y <= 0):
            raise DataError(f"the gamma loss needs positive targets, got {float(y.min())}")

    def mean(self, prediction: np.ndarray) -> np.ndarray:
        """Return the means."""
        with np.errstate(over="ignore"):
            return np.exp(prediction)

    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return the weighted mean loss."""
        with np.errstate(over="ignore"):
            return float(weight @ (prediction + y * np.exp(-prediction)))

    def saturated(self, y: np.ndarray, weight: np.ndarray) -> float:
        """Return the loss where every mean is its target."""
        return float(weight @ (np.log(y) + 1))

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the weighted share of the mean by which it exceeds the target."""
        return weight * (1 - y * np.exp(-prediction))

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the weighted ratio of target and mean."""
        return weight * y * np.exp(-prediction)

    def conjugate(self, y: np.ndarray, dual: np.ndarray, weight: np.ndarray) -> float:
        """Return ``sum weight s (log(s / y) - 1)`` with ``s = 1 - dual / weight``, not negative."""
        used = weight > 0
        s = 1 - dual[used] / weight[used]
        if np.any(s < -1e-12):
            return np.inf
        s = np.maximum(s, 0)
        logs = np.log(np.maximum(s, 1e-300) / y[used])
        return float(weight[used] @ (s * logs - s))


@dataclass(frozen=True)
class Tweedie(Datafit):
    """Half the Tweedie deviance with a log link: sums of a random number of positive amounts.

    Weighted mean of ``exp((2 - p) z) / (2 - p) - y exp((1 - p) z) / (1 - p)``, as for insurance
    claims or rainfall, which are zero for many samples. Powers of one and two are
    :class:`~thresher.solve.datafits.generalized.Poisson` and :class:`Gamma`.

    Parameters
    ----------
    power : float, default 1.5
        Power `p` of the mean with which the variance grows, between 1 and 2.

    References
    ----------
    Tweedie, An index which distinguishes between some important exponential families (1984);
    Jørgensen, Exponential dispersion models (1987).
    """

    bounded_curvature: ClassVar[bool] = False
    log_link: ClassVar[bool] = True
    power: float = 1.5

    def __post_init__(self) -> None:
        check_number("power", self.power, above=1.0, below=2.0)

    def check_target(self, y: np.ndarray) -> None:
        """Raise DataError if a target is negative."""
        if np.any(y < 0):
            raise DataError(f"the Tweedie loss needs targets of at least 0, got {float(y.min())}")

    def degeneracy(self, y: np.ndarray, weight: np.ndarray, intercept: bool) -> str | None:
        """Say that all targets are zero, which an endless constant fits."""
        if intercept and not np.any(y[weight > 0]):
            return "all counts and amounts that weigh something are zero"
        return None

    def mean(self, prediction: np.ndarray) -> np.ndarray:
        """Return the means."""
        with np.errstate(over="ignore"):
            return np.exp(prediction)

    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return the weighted mean loss, up to a constant of `y`."""
        upper, lower = 2 - self.power, self.power - 1
        with np.errstate(over="ignore"):
            grown, shrunk = np.exp(upper * prediction), np.exp(-lower * prediction)
            return float(weight @ (grown / upper + y * shrunk / lower))

    def saturated(self, y: np.ndarray, weight: np.ndarray) -> float:
        """Return the loss where every mean is its target."""
        upper, lower = 2 - self.power, self.power - 1
        return float(weight @ (y**upper * (1 / upper + 1 / lower)))

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the weighted excess of the mean, over the mean to the power less one."""
        upper, lower = 2 - self.power, self.power - 1
        return weight * (np.exp(upper * prediction) - y * np.exp(-lower * prediction))

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the second derivative, positive everywhere."""
        upper, lower = 2 - self.power, self.power - 1
        grown, shrunk = np.exp(upper * prediction), np.exp(-lower * prediction)
        return weight * (upper * grown + y * lower * shrunk)
