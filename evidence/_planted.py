"""Planted recovery: sparse vectors, what is measured of them, and how well they were found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: ``design(rng, rows, columns)`` returns measurements.
Design = Callable[[np.random.Generator, int, int], np.ndarray]


@dataclass(frozen=True)
class Planted:
    """A vector, and what was measured of it.

    Parameters
    ----------
    A : array of shape (n, p)
        Measurements.
    y : array of shape (n,)
        What was measured, with noise.
    x : array of shape (p,)
        The vector.
    """

    A: np.ndarray
    y: np.ndarray
    x: np.ndarray


def gaussian(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return independent entries."""
    return rng.standard_normal((rows, columns))


def correlated(correlation: float) -> Design:
    """Make the design whose neighbouring columns are correlated."""

    def design(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
        A = gaussian(rng, rows, columns)
        for j in range(1, columns):
            A[:, j] = correlation * A[:, j - 1] + np.sqrt(1 - correlation**2) * A[:, j]
        return A

    return design


def ill_conditioned(condition: float) -> Design:
    """Make the design whose singular values fall geometrically, with this ratio of extremes."""

    def design(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
        left, _, right = np.linalg.svd(gaussian(rng, rows, columns), full_matrices=False)
        return (left * np.geomspace(1, 1 / condition, len(left))) @ right

    return design


def unit_columns(A: np.ndarray) -> np.ndarray:
    """Return the matrix with columns of norm one."""
    return A / np.linalg.norm(A, axis=0)


def sparse_vector(rng: np.random.Generator, size: int, nonzeros: int) -> np.ndarray:
    """Return a vector with Gaussian entries at random places."""
    vector = np.zeros(size)
    vector[rng.choice(size, nonzeros, replace=False)] = rng.standard_normal(nonzeros)
    return vector


def with_noise(rng: np.random.Generator, signal: np.ndarray, snr: float) -> np.ndarray:
    """Return the signal plus Gaussian noise at a ratio of powers given in decibels."""
    deviation = np.linalg.norm(signal) / np.sqrt(signal.size) * 10 ** (-snr / 20)
    return signal + deviation * rng.standard_normal(signal.shape)


def plant(rng: np.random.Generator, A: np.ndarray, x: np.ndarray, snr: float = np.inf) -> Planted:
    """Measure a vector, without noise by default."""
    return Planted(A, with_noise(rng, A @ x, snr), x)


def decibels(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the squared error relative to the squared norm of the truth, in decibels."""
    ratio = float(np.sum((found - truth) ** 2) / np.sum(truth**2))
    # Capped so that a diverged method can be averaged: 0 dB is the error of the zero vector.
    return 10 * float(np.log10(np.clip(ratio, 1e-20, 1e4))) if np.isfinite(ratio) else 40.0


def error_db(found: np.ndarray, problem: Planted) -> float:
    """Return the error of a vector in decibels."""
    return decibels(found, problem.x)


def relative_error(found: np.ndarray, problem: Planted) -> float:
    """Return the norm of the error relative to that of the vector."""
    return float(np.linalg.norm(found - problem.x) / np.linalg.norm(problem.x))


def unmatched(found: np.ndarray, truth: np.ndarray) -> float:
    """Return one less the F1 of a support, both boolean."""
    return 1 - 2 * float(np.sum(found & truth)) / max(float(found.sum() + truth.sum()), 1.0)
