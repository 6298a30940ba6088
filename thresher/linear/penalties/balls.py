"""Constraints to the convex hull of a few atoms, as penalties that are zero or infinite."""

from __future__ import annotations

__all__ = ["Ball", "L1Ball", "Simplex"]

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from ...core import prox_norms
from ...core.errors import OptionError
from .base import Penalty


@dataclass(frozen=True)
class Ball(Penalty):
    """The convex hull of a set of atoms.

    Parameters
    ----------
    radius : float, default 1
        Positive.
    """

    radius: float = 1.0

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise OptionError(f"radius must be positive, got {self.radius}")

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Say why coefficients of a shape are not taken; None if they are."""
        return None if len(shape) == 1 else "it is defined for a single output"

    @abstractmethod
    def atom(self, gradient: np.ndarray) -> np.ndarray:
        """Return the atom with the smallest inner product with `gradient`."""

    @abstractmethod
    def excess(self, coef: np.ndarray) -> float:
        """Return by how much `coef` lies outside, zero inside."""

    def value(self, coef: np.ndarray) -> float:
        """Return zero inside the ball (to rounding), infinity outside."""
        return 0.0 if self.excess(coef) <= 1e-9 * self.radius else np.inf

    def scaled(self, factor: float) -> Ball:
        """Return the ball with its radius divided by `factor`: a larger strength is smaller."""
        return replace(self, radius=self.radius / factor)


@dataclass(frozen=True)
class L1Ball(Ball):
    """``||w||_1 <= radius``, whose atoms are signed multiples of single coordinates."""

    def atom(self, gradient: np.ndarray) -> np.ndarray:
        """Return the signed coordinate of the largest gradient entry."""
        best = int(np.argmax(np.abs(gradient)))
        atom = np.zeros(gradient.shape)
        atom[best] = -self.radius * np.sign(gradient[best])
        return atom

    def excess(self, coef: np.ndarray) -> float:
        """Return how far the L1 norm exceeds the radius."""
        return max(float(np.abs(coef).sum()) - self.radius, 0.0)

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the projection."""
        return prox_norms.l1_ball(x, self.radius)


@dataclass(frozen=True)
class Simplex(Ball):
    """``w >= 0, sum(w) = radius``, whose atoms are multiples of single coordinates."""

    def atom(self, gradient: np.ndarray) -> np.ndarray:
        """Return the coordinate of the smallest gradient entry."""
        atom = np.zeros(gradient.shape)
        atom[int(np.argmin(gradient))] = self.radius
        return atom

    def excess(self, coef: np.ndarray) -> float:
        """Return how far the sum misses the radius or entries fall below zero."""
        below = max(-float(coef.min(initial=0.0)), 0.0)
        return max(abs(float(coef.sum()) - self.radius), below)

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the projection."""
        return prox_norms.simplex(x, self.radius)
