"""Null-space tuning with hard thresholding and feedback."""

from __future__ import annotations

__all__ = ["ThresholdingWithFeedback"]

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ...core.card import Card, Catalogued
from ...core.options import check_count, check_number
from ...core.top_k import top_k_mask
from ...solve.weighted_columns import WeightedColumns
from ..greedy.columns import Columns
from ..greedy.pursuit import GreedyRegressor
from .thresholding import Recovery, check_measurements, iterate, least_squares


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
        If `k` is not a whole number from 1 to the number of columns, or another option is out
        of range.

    References
    ----------
    The finite steps of convergence of the fast thresholding algorithms with feedbacks (2017),
    arXiv:1711.02359, for NST+HT+FB and its adaptive form AdptNST+HT+FB.
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

    def recover(self, A: Any, y: Any) -> Recovery:
        """Recover a vector from measurements ``y = A x``, without centring or scaling.

        Parameters
        ----------
        A : array-like or sparse matrix of shape (n, p)
            Measurements.
        y : array-like of shape (n,)
            What was measured.

        Returns
        -------
        Recovery
            The vector and the number of steps.

        Raises
        ------
        DataError
            If shapes do not match, or values are NaN or infinite.
        OptionError
            If an option is out of range.
        """
        A, y, units = check_measurements(A, y)
        check_count("k", self.k, A.shape[1], "entries")
        check_number("tol", self.tol)
        gram = A @ A.T
        gram[np.diag_indices_from(gram)] += 1e-12 * (float(np.trace(gram)) or 1.0) / len(y)
        factor = cho_factor(gram)
        solution = A.T @ cho_solve(factor, y)  # the current point; iterate holds the sparse one
        kept = 0

        def step(coef: np.ndarray) -> np.ndarray:
            nonlocal solution, kept
            kept = min(kept + 1, self.k) if self.adaptive else self.k
            support = top_k_mask(np.abs(solution), kept)
            # Feeding back the cut part is the least squares fit of y minus what solution misses,
            # and solution misses nothing: it solves A x = y.
            sparse = least_squares(A, y, support)
            solution = sparse + A.T @ cho_solve(factor, y - A @ sparse)
            return sparse

        return iterate(A, y, units, step, self.tol, self.max_iter)

    def _choose(self, columns: WeightedColumns, y: np.ndarray) -> tuple[Any, np.ndarray]:
        self.recovery_ = self.recover(columns.dense(), y)
        fitted = Columns(columns, y)
        for j in np.flatnonzero(self.recovery_.coef):
            fitted.add(int(j))
        return fitted.chosen, fitted.coefficients()

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ThresholdingWithFeedback:
        """Find the support and fit its coefficients.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features; a sparse matrix is made dense.
        y : array of shape (n_samples,)
            Target.
        sample_weight : array of shape (n_samples,), optional
            Weights, not negative: a sample of weight two counts as two samples.

        Returns
        -------
        self
            Fitted.
        """
        super().fit(X, y, sample_weight)
        self.n_iter_ = self.recovery_.n_iter
        return self
