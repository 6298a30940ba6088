"""Sparse vectors from the magnitudes of their measurements."""

from __future__ import annotations

__all__ = ["SparsePhaseRetrieval"]

import warnings
from typing import Any

import numpy as np
from scipy.linalg import solve
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_X_y

from ...core.card import Card, Catalogued
from ...core.errors import DataError
from ...core.options import check_count, check_number, check_whole
from ...core.prox import top_k
from ...core.top_k import top_k_mask


class SparsePhaseRetrieval(Catalogued, BaseEstimator):
    """Recovers a k-sparse ``x``, up to its sign, from ``y = |A x|`` by Newton steps.

    Two losses share the work. A gradient step on the amplitude loss
    ``sum((|A x| - y)^2) / 2n`` followed by hard thresholding finds the support; a Newton step
    on the intensity loss ``sum(((A x)^2 - y^2)^2) / 4n``, restricted to it, finds the
    entries. Once the support is right, convergence is quadratic.

    Parameters
    ----------
    k : int, default 1
        Non-zeros.
    newton : bool, default True
        Whether to take Newton steps; without them the gradient step is all, a first-order
        method for comparison.
    step : float, default 0.75
        Length of the gradient step for measurements with entries of unit variance.
    tol : float, default 1e-10
        Stop when a step changes the vector by less than this, relative to its norm.
    max_iter : int, default 100
        Most steps.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        The vector, k-sparse; its sign is free.
    path_ : list of arrays of shape (n_features,)
        The spectral start and the vector after every step.
    n_iter_ : int
        Steps.

    Raises
    ------
    OptionError
        If `k` is not from 1 to the number of features, or another number out of range.
    DataError
        If a magnitude is negative, or all are zero.

    References
    ----------
    Cai, Long, Wen and Ying, A fast and provable algorithm for sparse phase retrieval (ICLR
    2024), arXiv:2309.02046, for the two losses and the Newton step.

    Jagatap and Hegde, Sample-efficient algorithms for recovering structured signals from
    magnitude-only measurements (2019), for the spectral start.
    """

    card = Card(
        name="sparse-phase-retrieval",
        title="A Fast and Provable Algorithm for Sparse Phase Retrieval",
        authors="Jian-Feng Cai, Yu Long, Ruixue Wen, Jiaxi Ying",
        year=2023,
        arxiv="2309.02046",
        summary="Newton steps on a support found by hard thresholding, from magnitudes alone",
    )

    def __init__(
        self,
        k: int = 1,
        *,
        newton: bool = True,
        step: float = 0.75,
        tol: float = 1e-10,
        max_iter: int = 100,
    ) -> None:
        self.k = k
        self.newton = newton
        self.step = step
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, A: Any, y: Any) -> SparsePhaseRetrieval:
        """Recover the vector.

        Parameters
        ----------
        A : array of shape (n, n_features)
            Measurements; the analysis takes independent Gaussian entries.
        y : array of shape (n,)
            Magnitudes ``|A x|``, not negative.

        Returns
        -------
        self
            Fitted.

        Warns
        -----
        ConvergenceWarning
            If the vector did not settle.
        """
        A, y = check_X_y(A, y, dtype=np.float64, y_numeric=True)
        check_count("k", self.k, A.shape[1], "entries")
        check_number("step", self.step, above=0.0)
        check_number("tol", self.tol)
        check_whole("max_iter", self.max_iter)
        if y.min() < 0 or not np.any(y):
            raise DataError(f"magnitudes must not be negative nor all zero; least {y.min()}")
        # The step and the start are made for entries of unit variance.
        unit = float(np.sqrt(np.mean(A**2)))
        A = A / unit
        x = _spectral_start(A, y, self.k)
        path, settled = [x], False
        while len(path) <= self.max_iter and not settled:
            following = self._following(A, y, x)
            settled = np.linalg.norm(following - x) <= self.tol * np.linalg.norm(following)
            x = following
            path.append(x)
        self.path_ = [point / unit for point in path]
        self.coef_, self.n_iter_ = self.path_[-1], len(path) - 1
        if not settled:
            warnings.warn(
                f"the vector still changes after {self.n_iter_} steps; raise max_iter, or measure "
                "more: it may not have been recovered",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _following(self, A: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        product = A @ x
        gradient = A.T @ (product - y * np.sign(product)) / len(y)
        moved = x - self.step * gradient
        if not self.newton:
            return top_k(moved, self.k)
        support = top_k_mask(np.abs(moved), self.k)
        leaving = (x != 0) & ~support
        # Newton's equation on the support; entries that leave move to zero, by -x.
        used = A[:, support]
        curvature = 3 * product**2 - y**2
        slope = used.T @ ((product**2 - y**2) * product)
        cross = used.T @ (curvature * (A[:, leaving] @ x[leaving]))
        hessian = used.T @ (used * curvature[:, None])
        following = np.zeros_like(x)
        try:
            following[support] = x[support] - solve(hessian, slope - cross, assume_a="sym")
        except np.linalg.LinAlgError:
            return top_k(moved, self.k)  # no Newton step here; the gradient step stands
        return following


def _spectral_start(A: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Return the leading eigenvector on the coordinates whose energy stands out, scaled.

    The expectation of ``mean(y^2 a_j^2)`` exceeds ``|x|^2`` by twice ``x_j^2``.
    """
    energy = np.mean((y[:, None] * A) ** 2, axis=0)
    support = np.flatnonzero(top_k_mask(energy, k))
    used = A[:, support]
    vectors = np.linalg.eigh(used.T @ (used * y[:, None] ** 2))[1]
    start = np.zeros(A.shape[1])
    start[support] = vectors[:, -1] * np.sqrt(np.mean(y**2))
    return start
