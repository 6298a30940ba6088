"""Planted sparse vectors and how well they were found, for several experiments."""

from __future__ import annotations

import numpy as np


def sparse_vector(rng: np.random.Generator, size: int, nonzeros: int) -> np.ndarray:
    """Return a vector with Gaussian entries at random places."""
    vector = np.zeros(size)
    vector[rng.choice(size, nonzeros, replace=False)] = rng.standard_normal(nonzeros)
    return vector


def with_noise(rng: np.random.Generator, signal: np.ndarray, snr: float) -> np.ndarray:
    """Return the signal plus Gaussian noise at a ratio of powers given in decibels."""
    deviation = np.linalg.norm(signal) / np.sqrt(signal.size) * 10 ** (-snr / 20)
    return signal + deviation * rng.standard_normal(signal.shape)


def decibels(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the squared error relative to the squared norm of the truth, in decibels."""
    ratio = float(np.sum((found - truth) ** 2) / np.sum(truth**2))
    # Capped so that a diverged method can be averaged: 0 dB is the error of the zero vector.
    return 10 * float(np.log10(np.clip(ratio, 1e-20, 1e4))) if np.isfinite(ratio) else 40.0
