"""Recovery of k-sparse vectors by hard thresholding, in its classical variants."""

from __future__ import annotations

__all__ = ["Recovery", "ThresholdingWithFeedback", "cosamp", "hard_thresholding_pursuit", "iht"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ..core.card import Card, Catalogued
from ..core.errors import OptionError
from ..core.prox import top_k
from ..core.top_k import top_k_mask
from .greedy import Columns
from .pursuit import GreedyRegressor

# From the current vector to the next one.
Step = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Recovery:
    """A recovered vector.

    Parameters
    ----------
    coef : array of shape (p,)
        The vector, k-sparse.
    n_iter : int
        Steps taken.
    residual : float
        Norm of ``y - A coef``.
    """

    coef: np.ndarray
    n_iter: int
    residual: float


def _iterate(
    A: np.ndarray, y: np.ndarray, k: int, step: Step, tolerance: float, max_iter: int
) -> Recovery:
    """Step until the residual is small or nothing changes; every method shares this loop."""
    if not 1 <= k <= A.shape[1]:
        raise OptionError(f"cannot keep {k} of {A.shape[1]} entries; keep 1 to {A.shape[1]}")
    coef = np.zeros(A.shape[1])
    goal = tolerance * float(np.linalg.norm(y))
    count = 0
    while count < max_iter:
        count += 1
        following = step(coef)
        settled = np.linalg.norm(following - coef) <= 1e-12 * np.linalg.norm(following)
        coef = following
        if settled or np.linalg.norm(y - A @ coef) <= goal:
            break
    coef = top_k(coef, k)
    return Recovery(coef, count, float(np.linalg.norm(y - A @ coef)))


def _least_squares(A: np.ndarray, y: np.ndarray, support: np.ndarray) -> np.ndarray:
    coef = np.zeros(A.shape[1])
    coef[support] = np.linalg.lstsq(A[:, support], y, rcond=None)[0]
    return coef


def iht(
    A: np.ndarray, y: np.ndarray, k: int, tolerance: float = 1e-8, max_iter: int = 1000
) -> Recovery:
    """Recover by normalised iterative hard thresholding.

    Parameters
    ----------
    A : array of shape (n, p)
        Measurements.
    y : array of shape (n,)
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
        The vector and how it was reached.

    References
    ----------
    Blumensath and Davies, Normalized iterative hard thresholding: guaranteed stability and
    performance (2010).
    """

    def step(coef: np.ndarray) -> np.ndarray:
        gradient = A.T @ (y - A @ coef)
        support = coef != 0 if np.any(coef) else top_k_mask(np.abs(gradient), k)
        inside = np.where(support, gradient, 0)
        change = A @ inside
        size = (inside @ inside) / max(change @ change, 1e-300)
        following = top_k(coef + size * gradient, k)
        while not np.array_equal(following != 0, support):
            # Off the support the step must not exceed what keeps the residual falling.
            move = following - coef
            bound = 0.99 * (move @ move) / max(float(np.sum((A @ move) ** 2)), 1e-300)
            if size <= bound:
                break
            size /= 2
            following = top_k(coef + size * gradient, k)
        return following

    return _iterate(A, y, k, step, tolerance, max_iter)


def hard_thresholding_pursuit(
    A: np.ndarray, y: np.ndarray, k: int, tolerance: float = 1e-8, max_iter: int = 1000
) -> Recovery:
    """Recover by hard thresholding pursuit: a gradient step, the top k, least squares.

    Parameters and result as for :func:`iht`.

    References
    ----------
    Foucart, Hard thresholding pursuit: an algorithm for compressive sensing (2011).
    """
    size = 1 / np.linalg.norm(A, 2) ** 2 * A.shape[1] / A.shape[0]

    def step(coef: np.ndarray) -> np.ndarray:
        moved = coef + size * (A.T @ (y - A @ coef))
        return _least_squares(A, y, top_k_mask(np.abs(moved), k))

    return _iterate(A, y, k, step, tolerance, max_iter)


def cosamp(
    A: np.ndarray, y: np.ndarray, k: int, tolerance: float = 1e-8, max_iter: int = 1000
) -> Recovery:
    """Recover by compressive sampling matching pursuit.

    Parameters and result as for :func:`iht`.

    References
    ----------
    Needell and Tropp, CoSaMP: iterative signal recovery from incomplete and inaccurate
    samples (2009).
    """
    wide = min(2 * k, A.shape[1])

    def step(coef: np.ndarray) -> np.ndarray:
        found = top_k_mask(np.abs(A.T @ (y - A @ coef)), wide)
        return top_k(_least_squares(A, y, found | (coef != 0)), k)

    return _iterate(A, y, k, step, tolerance, max_iter)


class ThresholdingWithFeedback(Catalogued, GreedyRegressor):
    """Null-space tuning with hard thresholding and feedback (NST+HT+FB).

    Alternates between the solutions of ``A x = y`` and the k-sparse vectors. The entries
    that thresholding cuts are not lost: their part of the measurements is fed back to the
    kept ones by least squares before the return to the solutions.

    Parameters
    ----------
    k : int, default 1
        Non-zeros; where `adaptive`, the most that are tried.
    adaptive : bool, default False
        Whether to find the number: step i keeps i entries until the residual vanishes.
    fit_intercept : bool, default True
        Whether to fit a constant.
    tol : float, default 1e-8
        Stop at this norm of the residual, relative to that of the target.
    max_iter : int, default 500
        Most steps.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Coefficients.
    intercept_ : float
        Constant.
    support_ : array of int
        The kept columns.
    recovery_ : Recovery
        The vector for unit columns, and the number of steps.
    n_iter_ : int
        Steps.

    Raises
    ------
    OptionError
        If `k` exceeds the number of columns.
    """

    card = Card(
        name="thresholding-with-feedback",
        title="The finite steps of convergence of the fast thresholding algorithms with feedbacks",
        authors="Ningning Han, Shidong Li, Zhanjie Song",
        year=2017,
        arxiv="1711.02359",
        summary="alternate between solutions and k-sparse vectors, feeding back what is cut",
    )

    def __init__(
        self,
        k: int = 1,
        *,
        adaptive: bool = False,
        fit_intercept: bool = True,
        tol: float = 1e-8,
        max_iter: int = 500,
    ) -> None:
        self.k = k
        self.adaptive = adaptive
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    def recover(self, A: np.ndarray, y: np.ndarray) -> Recovery:
        """Recover a vector from measurements ``y = A x``, without centring or scaling.

        Parameters
        ----------
        A : array of shape (n, p)
            Measurements.
        y : array of shape (n,)
            What was measured.

        Returns
        -------
        Recovery
            The vector and the number of steps.
        """
        gram = A @ A.T
        gram[np.diag_indices_from(gram)] += 1e-12 * max(float(np.trace(gram)), 1e-300) / len(y)
        factor = cho_factor(gram)
        solution = A.T @ cho_solve(factor, y)  # the current point; _iterate holds the sparse one
        kept = 0

        def step(coef: np.ndarray) -> np.ndarray:
            nonlocal solution, kept
            kept = min(kept + 1, self.k) if self.adaptive else self.k
            support = top_k_mask(np.abs(solution), kept)
            # Feeding back the cut part is the least squares fit of y minus what solution misses,
            # and solution misses nothing: it solves A x = y.
            sparse = _least_squares(A, y, support)
            solution = sparse + A.T @ cho_solve(factor, y - A @ sparse)
            return sparse

        return _iterate(A, y, self.k, step, self.tol, self.max_iter)

    def _select(self, X: np.ndarray, y: np.ndarray) -> Columns:
        self.recovery_ = self.recover(X, y)
        columns = Columns(X, y)
        for j in np.flatnonzero(self.recovery_.coef):
            columns.add(int(j))
        return columns

    def fit(self, X: Any, y: Any) -> ThresholdingWithFeedback:
        """Find the support and fit its coefficients.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,)
            Target.

        Returns
        -------
        self
            Fitted.
        """
        super().fit(X, y)
        self.n_iter_ = self.recovery_.n_iter
        return self
