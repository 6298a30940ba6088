"""Recovery of sparse vectors from few measurements by thresholding, in its classical variants."""

from __future__ import annotations

__all__ = ["Recovery", "amp", "cosamp", "hard_thresholding_pursuit", "iht"]

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

from ...core.errors import DataError
from ...core.options import check_count, check_number, check_whole
from ...core.prox import soft, top_k
from ...core.top_k import top_k_mask
from ...solve.weighted_columns import power_of_two

# From the current vector to the next one.
Step = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Recovery:
    """A recovered vector.

    Parameters
    ----------
    coef : array of shape (p,)
        The vector.
    n_iter : int
        Steps taken.
    residual : float
        Norm of ``y - A coef``.
    """

    coef: np.ndarray
    n_iter: int
    residual: float


@dataclass(frozen=True)
class Units:
    """What measurements were divided by, so that squares of them can be summed.

    Parameters
    ----------
    A, y : float
        Powers of two, which round nothing.
    """

    A: float
    y: float

    def restore(self, coef: np.ndarray, n_iter: int, residual: float) -> Recovery:
        """Return what was recovered in the units of the measurements as given."""
        return Recovery(coef * (self.y / self.A), n_iter, residual * self.y)


def check_measurements(A: Any, y: Any) -> tuple[np.ndarray, np.ndarray, Units]:
    """Return measurements as arrays of doubles with largest entries from 1 to 2, and their units.

    Parameters
    ----------
    A : array-like or sparse matrix of shape (n, p)
        Measurements.
    y : array-like of shape (n,)
        What was measured.

    Raises
    ------
    DataError
        If shapes do not match, or values are NaN or infinite.
    """
    A = np.asarray(A.toarray() if sparse.issparse(A) else A, dtype=float)
    y = np.asarray(y, dtype=float)
    if A.ndim != 2 or y.shape != A.shape[:1] or A.size == 0:
        raise DataError(
            f"A {A.shape} and y {y.shape} do not match; A must be a matrix that is not empty, and "
            "y a vector with one value for each of its rows"
        )
    for name, values in (("A", A), ("y", y)):
        if not np.all(np.isfinite(values)):
            raise DataError(f"{name} holds NaN or infinite values; leave out those measurements")
    units = Units(*(float(power_of_two(np.abs(values).max())) for values in (A, y)))
    return A / units.A, y / units.y, units


def iterate(
    A: np.ndarray, y: np.ndarray, units: Units, step: Step, tolerance: float, max_iter: int
) -> Recovery:
    """Step from zero until the residual is small or nothing changes; every method's loop.

    Parameters
    ----------
    A : array of shape (n, p)
        Measurements.
    y : array of shape (n,)
        What was measured.
    units : Units
        What both were divided by.
    step : callable
        From the current vector to the next one.
    tolerance : float
        Stop at this norm of the residual, relative to that of `y`.
    max_iter : int
        Most steps.

    Returns
    -------
    Recovery
        In the units as given, the last vector, or the best if the residual grew a thousandfold.
    """
    check_whole("max_iter", max_iter)
    check_number("tolerance", tolerance)
    coef = best = np.zeros(A.shape[1])
    residual = least = first = float(np.linalg.norm(y))
    count = 0
    while count < max_iter and residual <= 1000 * first:
        count += 1
        following = step(coef)
        settled = np.linalg.norm(following - coef) <= 1e-12 * np.linalg.norm(following)
        coef = following
        residual = float(np.linalg.norm(y - A @ coef))
        if residual <= least:
            best, least = coef, residual
        if settled or residual <= tolerance * first:
            return units.restore(coef, count, residual)
    diverged = residual > 1000 * first
    return units.restore(best if diverged else coef, count, least if diverged else residual)


def least_squares(A: np.ndarray, y: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Return the vector on a support (boolean) whose measurements are nearest to `y`."""
    coef = np.zeros(A.shape[1])
    coef[support] = np.linalg.lstsq(A[:, support], y, rcond=None)[0]
    return coef


def iht(A: Any, y: Any, k: int, tolerance: float = 1e-8, max_iter: int = 1000) -> Recovery:
    """Recover by normalised iterative hard thresholding.

    Parameters
    ----------
    A : array-like or sparse matrix of shape (n, p)
        Measurements.
    y : array-like of shape (n,)
        What was measured.
    k : int
        Non-zeros.
    tolerance : float, default 1e-8
        Stop at this norm of the residual, relative to that of `y`.
    max_iter : int, default 1000
        Most steps.

    Returns
    -------
    Recovery
        The vector, k-sparse, and how it was reached.

    Raises
    ------
    DataError
        If shapes do not match, or values are NaN or infinite.
    OptionError
        If `k` or another option is out of range.

    References
    ----------
    Blumensath and Davies, Normalized iterative hard thresholding: guaranteed stability and
    performance (2010).
    """
    A, y, units = check_measurements(A, y)
    check_count("k", k, A.shape[1], "entries")
    square = float(np.sum(A**2))

    def step(coef: np.ndarray) -> np.ndarray:
        gradient = A.T @ (y - A @ coef)
        support = coef != 0 if np.any(coef) else top_k_mask(np.abs(gradient), k)
        inside = np.where(support, gradient, 0)
        change = A @ inside
        steepness = inside @ inside
        size = steepness / max(change @ change, 1e-30 * square * steepness, 1e-300)
        following = top_k(coef + size * gradient, k)
        for _ in range(100):  # which is enough from the largest size to one that is safe for all
            if np.array_equal(following != 0, support):
                break
            # Off the support the step must not exceed what keeps the residual falling.
            move = following - coef
            bound = 0.99 * (move @ move) / max(float(np.sum((A @ move) ** 2)), 1e-300)
            if size <= bound:
                break
            size /= 2
            following = top_k(coef + size * gradient, k)
        return following

    return iterate(A, y, units, step, tolerance, max_iter)


def hard_thresholding_pursuit(
    A: Any, y: Any, k: int, tolerance: float = 1e-8, max_iter: int = 1000
) -> Recovery:
    """Recover by hard thresholding pursuit: a gradient step, the top k, least squares.

    Columns are scaled to unit norm inside, for which the step is one, as in the author's own
    programs. Parameters, result and errors as for :func:`iht`.

    References
    ----------
    Foucart, Hard thresholding pursuit: an algorithm for compressive sensing (2011).
    """
    A, y, units = check_measurements(A, y)
    check_count("k", k, A.shape[1], "entries")
    unit, norms = _unit_columns(A)

    def step(coef: np.ndarray) -> np.ndarray:
        moved = coef + unit.T @ (y - unit @ coef)
        return least_squares(unit, y, top_k_mask(np.abs(moved), k))

    found = iterate(unit, y, units, step, tolerance, max_iter)
    return replace(found, coef=found.coef / norms)


def cosamp(A: Any, y: Any, k: int, tolerance: float = 1e-8, max_iter: int = 1000) -> Recovery:
    """Recover by compressive sampling matching pursuit.

    Parameters, result and errors as for :func:`iht`.

    References
    ----------
    Needell and Tropp, CoSaMP: iterative signal recovery from incomplete and inaccurate
    samples (2009).
    """
    A, y, units = check_measurements(A, y)
    check_count("k", k, A.shape[1], "entries")
    wide = min(2 * k, A.shape[1])

    def step(coef: np.ndarray) -> np.ndarray:
        found = top_k_mask(np.abs(A.T @ (y - A @ coef)), wide)
        return top_k(least_squares(A, y, found | (coef != 0)), k)

    return iterate(A, y, units, step, tolerance, max_iter)


def amp(
    A: Any,
    y: Any,
    threshold: float | None = None,
    tolerance: float = 1e-8,
    max_iter: int = 1000,
) -> Recovery:
    """Recover by approximate message passing, which needs no number of non-zeros.

    A step thresholds softly what the residual suggests. The residual keeps the Onsager term, its
    own last value times the share of entries that passed per measurement: it cancels what the
    thresholding feeds back, so that the noise stays Gaussian, for large `A` of independent
    entries. For other matrices the steps may diverge; the best vector is returned then.

    Parameters
    ----------
    A : array-like or sparse matrix of shape (n, p)
        Measurements; columns are scaled to unit norm inside.
    y : array-like of shape (n,)
        What was measured.
    threshold : float, optional
        In units of the noise of a step, above 0. By default the one that recovers the most
        non-zeros for n of p measurements, whatever their sizes.
    tolerance : float, default 1e-8
        Stop at this norm of the residual, relative to that of `y`.
    max_iter : int, default 1000
        Most steps.

    Returns
    -------
    Recovery
        The vector and how it was reached.

    Raises
    ------
    DataError
        If shapes do not match, or values are NaN or infinite.
    OptionError
        If an option is out of range.

    References
    ----------
    Donoho, Maleki and Montanari, Message-passing algorithms for compressed sensing (2009),
    equations 1 and 2; the default threshold is the one of their phase transition.
    """
    A, y, units = check_measurements(A, y)
    rows, columns = A.shape
    if threshold is None:
        threshold = _best_threshold(rows / columns)
    check_number("threshold", threshold, above=0.0)
    unit, norms = _unit_columns(A)
    message = np.zeros(rows)

    def step(coef: np.ndarray) -> np.ndarray:
        nonlocal message
        message = y - unit @ coef + np.count_nonzero(coef) / rows * message
        noise = np.linalg.norm(message) / np.sqrt(rows)
        return soft(coef + unit.T @ message, threshold * noise)

    found = iterate(unit, y, units, step, tolerance, max_iter)
    return replace(found, coef=found.coef / norms)


def _unit_columns(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns with unit norm, and what they were divided by; one for zeros."""
    largest = np.abs(A).max(axis=0)
    largest = np.where(largest > 0, largest, 1.0)
    norms = largest * np.maximum(np.linalg.norm(A / largest, axis=0), 1.0)
    return A / norms, norms


def _best_threshold(share: float) -> float:
    """Return the threshold that allows the most non-zeros per measurement, by state evolution."""

    def fewer(z: float) -> float:
        density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        passed = (1 + z**2) * ndtr(-z) - z * density
        return float(-(1 - 2 / share * passed) / (1 + z**2 - 2 * passed))

    share = min(share, 0.99)  # with as many measurements as entries there is no threshold
    return float(minimize_scalar(fewer, bounds=(0.0, 10.0), method="bounded").x)
