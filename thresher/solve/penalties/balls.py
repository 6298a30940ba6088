"""Constraints to the convex hull of atoms, as penalties that are zero or infinite."""

from __future__ import annotations

__all__ = ["Ball", "L1Ball", "NuclearBall", "Polytope", "Simplex"]

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse.linalg import svds

from ...core import prox_norms
from ...core.errors import OptionError
from ...core.options import check_number
from .base import Penalty
from .dual_norms import Feasible

# Below this many rows or columns a full decomposition is as fast as a leading pair.
_SMALL = 20


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
        check_number("radius", self.radius, above=0.0)

    @abstractmethod
    def atom(self, gradient: np.ndarray) -> np.ndarray:
        """Return the atom with the smallest inner product with `gradient`."""

    @abstractmethod
    def excess(self, coef: np.ndarray) -> float:
        """Return by how much `coef` lies outside, zero inside."""

    def value(self, coef: np.ndarray) -> float:
        """Return zero inside the ball (to rounding), infinity outside."""
        return 0.0 if self.excess(coef) <= 1e-9 * self.radius else np.inf

    def feasible(self, gradient: np.ndarray) -> Feasible:
        """Leave the gradient as it is: the conjugate is the largest product with an atom."""
        return Feasible(1.0, -float(np.vdot(gradient, self.atom(gradient))))

    def alpha_max(self, gradient: np.ndarray) -> float:
        """Raise OptionError, as no radius is the one at which all coefficients are zero."""
        raise self.no_start("is a constraint to a ball, whose radius alpha divides")

    def scaled(self, factor: float) -> Ball:
        """Return the ball with its radius divided by `factor`: a larger strength is smaller.

        Raises
        ------
        OptionError
            If `factor` is not positive.
        """
        if not factor > 0:
            raise OptionError(
                f"{type(self).__name__} divides its radius by alpha, which must be positive, got "
                f"{factor:g}"
            )
        return replace(self, radius=self.radius / factor)


@dataclass(frozen=True)
class Polytope(Ball):
    """The convex hull of finitely many atoms, numbered from 0."""

    @abstractmethod
    def scores(self, gradient: np.ndarray) -> np.ndarray:
        """Return the inner product of every atom with `gradient`, of shape (atoms,)."""

    @abstractmethod
    def shares(self, coef: np.ndarray) -> np.ndarray:
        """Return convex weights of the atoms whose combination is `coef`, of shape (atoms,)."""

    @abstractmethod
    def combined(self, shares: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the combination of the atoms with the given weights."""

    def atom(self, gradient: np.ndarray) -> np.ndarray:
        """Return the atom with the smallest inner product with `gradient`."""
        scores = self.scores(gradient)
        chosen = np.zeros(len(scores))
        chosen[int(np.argmin(scores))] = 1
        return self.combined(chosen, gradient.shape)


@dataclass(frozen=True)
class L1Ball(Polytope):
    """``||w||_1 <= radius``, whose atoms are signed multiples of single coordinates.

    The last atom is zero, which is no corner: with it small coefficients have few atoms.
    """

    def scores(self, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient's entries, the same negated, and zero, times the radius."""
        flat = self.radius * gradient.ravel()
        return np.concatenate([flat, -flat, [0.0]])

    def shares(self, coef: np.ndarray) -> np.ndarray:
        """Return the positive parts, the negative parts, and what the norm leaves."""
        flat = coef.ravel() / self.radius
        left = max(1 - float(np.abs(flat).sum()), 0.0)
        return np.concatenate([np.maximum(flat, 0), np.maximum(-flat, 0), [left]])

    def combined(self, shares: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the difference of the first and the second shares, times the radius."""
        half = len(shares) // 2
        return self.radius * (shares[:half] - shares[half : 2 * half]).reshape(shape)

    def excess(self, coef: np.ndarray) -> float:
        """Return how far the L1 norm exceeds the radius."""
        return max(float(np.abs(coef).sum()) - self.radius, 0.0)

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the projection."""
        return prox_norms.l1_ball(x.ravel(), self.radius).reshape(x.shape)


@dataclass(frozen=True)
class Simplex(Polytope):
    """``w >= 0, sum(w) = radius``, whose atoms are multiples of single coordinates."""

    def scores(self, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient's entries times the radius."""
        return self.radius * gradient.ravel()

    def shares(self, coef: np.ndarray) -> np.ndarray:
        """Return the coefficients over the radius."""
        return coef.ravel() / self.radius

    def combined(self, shares: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the shares times the radius."""
        return self.radius * shares.reshape(shape)

    def excess(self, coef: np.ndarray) -> float:
        """Return how far the sum misses the radius or entries fall below zero."""
        below = max(-float(coef.min(initial=0.0)), 0.0)
        return max(abs(float(coef.sum()) - self.radius), below)

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the projection."""
        return prox_norms.simplex(x.ravel(), self.radius).reshape(x.shape)


@dataclass(frozen=True)
class NuclearBall(Ball):
    """Matrices whose singular values sum to `radius` at most; the atoms have rank one.

    For coefficients of several outputs, of shape (p, outputs). An atom costs one pair of
    leading singular vectors, the projection a full decomposition.

    References
    ----------
    Jaggi and Sulovský, A simple algorithm for nuclear norm regularized problems (2010).
    """

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Say why coefficients of a shape are not taken; None if they are."""
        if len(shape) == 2:
            return None
        return "the nuclear norm needs several outputs; use a datafit such as MultiTaskSquares"

    def atom(self, gradient: np.ndarray) -> np.ndarray:
        """Return the product of the leading singular vectors, negated, times the radius."""
        left, _, right = _leading(gradient)
        return -self.radius * np.outer(left, right)

    def excess(self, coef: np.ndarray) -> float:
        """Return how far the sum of the singular values exceeds the radius."""
        return max(float(np.linalg.norm(coef, "nuc")) - self.radius, 0.0)

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the projection: that of the singular values onto the L1 ball."""
        left, values, right = np.linalg.svd(x, full_matrices=False)
        return (left * prox_norms.l1_ball(values, self.radius)) @ right


def _leading(matrix: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Return the leading singular vectors and value."""
    if min(matrix.shape) <= _SMALL or not matrix.any():
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
    else:
        # A start drawn once, so that the same matrix gives the same atom.
        start = np.random.default_rng(0).standard_normal(min(matrix.shape))
        left, values, right = svds(matrix, k=1, v0=start)
    return left[:, 0], float(values[0]), right[0]
