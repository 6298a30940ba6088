"""The row space of a matrix from as few as two observed entries per row."""

from __future__ import annotations

__all__ = ["OneSidedCompletion"]

from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.utils.validation import check_is_fitted, validate_data

from ...core.card import Card, Catalogued
from ...core.errors import DataError
from ...core.options import check_number, check_whole
from .observed import Completion, Observed


class OneSidedCompletion(Catalogued, Completion):
    """Recovers the right singular vectors of a tall matrix with very few entries per row.

    Where a row has too few entries to be completed, the products of pairs of columns still
    average, over the rows that observe both, to the entries of ``X^T X / n``. That small
    matrix is completed at low rank, each entry weighted by the number of rows behind it.
    Noise in the entries of ``X`` adds its variance to the squares on the diagonal.

    Parameters
    ----------
    rank : int, default 1
        Rank; capped by the number of columns.
    tol : float, default 1e-8
        Tolerance of L-BFGS.
    max_iter : int, default 1000
        Most iterations of it.

    Attributes
    ----------
    components_ : array of shape (rank, n_features)
        Right singular vectors, the leading one first.
    gram_ : array of shape (n_features, n_features)
        The completed ``X^T X / n``, of low rank.
    singular_values_ : array of shape (rank,)
        Square roots of its eigenvalues: singular values of ``X / sqrt(n)``.
    n_iter_ : int
        Iterations.

    Raises
    ------
    OptionError
        If `rank` or `max_iter` is not a whole number of at least one, or `tol` not positive.
    DataError
        If no row observes two columns, or the entries' squares cannot be represented.

    References
    ----------
    Cao, Liang and Valiant, One-sided matrix completion from two observations per row (ICML
    2023), arXiv:2306.04049, for the completion of ``X^T X``.
    """

    card = Card(
        name="one-sided-completion",
        title="One-sided Matrix Completion from Two Observations Per Row",
        authors="Steven Cao, Percy Liang, Gregory Valiant",
        year=2023,
        arxiv="2306.04049",
        summary="right singular vectors from pairs of entries, by completing X^T X",
    )

    def __init__(self, rank: int = 1, *, tol: float = 1e-8, max_iter: int = 1000) -> None:
        self.rank = rank
        self.tol = tol
        self.max_iter = max_iter

    def fit_observed(self, observed: Observed) -> OneSidedCompletion:
        """Find the right singular vectors of a matrix of which only some entries are held.

        Parameters
        ----------
        observed : Observed
            The entries.

        Returns
        -------
        self
            Fitted.
        """
        check_whole("rank", self.rank)
        check_whole("max_iter", self.max_iter)
        check_number("tol", self.tol, above=0.0)
        seen = observed.values.copy()
        seen.data = np.ones_like(seen.data)
        # In a unit in which products neither overflow nor vanish.
        unit = float(np.abs(observed.values.data).max()) or 1.0
        if not 1e-152 <= unit <= 1e152:
            raise DataError(
                f"entries reach {unit:.3g}, whose squares leave the range of numbers; rescale X"
            )
        values = observed.values / unit
        counts = (seen.T @ seen).toarray()
        sums = (values.T @ values).toarray()
        pairs = counts.sum() - np.trace(counts)
        if len(counts) > 1 and pairs == 0:
            raise DataError("no row observes two columns; products of columns are all unknown")
        means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
        factor = unit * self._factor(means, counts / counts.sum())
        left, singular, _ = np.linalg.svd(factor, full_matrices=False)
        # The sign of a singular vector is free; the largest entry is made positive.
        largest = left[np.argmax(np.abs(left), axis=0), np.arange(left.shape[1])]
        self.components_ = (left * np.where(largest < 0, -1.0, 1.0)).T
        self.singular_values_ = singular
        self.gram_ = factor @ factor.T
        return self

    def _factor(self, means: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return V that minimises ``sum(weight * (means - V V^T)^2)``, from the eigenvectors."""
        size = len(means)
        unit = float(np.sqrt(np.sum(weight * means**2)))
        if unit == 0:
            self.n_iter_ = 1
            return np.zeros((size, min(self.rank, size)))
        scaled = means / unit
        eigenvalues, vectors = np.linalg.eigh(scaled)
        top = np.argsort(eigenvalues)[::-1][: self.rank]
        start = vectors[:, top] * np.sqrt(np.maximum(eigenvalues[top], 1e-3))

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            factor = flat.reshape(start.shape)
            gap = factor @ factor.T - scaled
            weighted = weight * gap
            return float(np.sum(weighted * gap)), (4 * weighted @ factor).ravel()

        options = {"maxiter": self.max_iter, "ftol": self.tol**1.5, "gtol": self.tol}
        found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
        self.n_iter_ = max(int(found.nit), 1)
        return found.x.reshape(start.shape) * np.sqrt(unit)

    def transform(self, X: Any) -> np.ndarray:
        """Return the scores of the rows: least squares on their observed entries.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Missing entries are NaN.

        Returns
        -------
        array of shape (n_samples, rank)
            Coordinates in the basis ``components_``, of minimal norm where a row has too few
            entries.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        scores = np.zeros((len(X), len(self.components_)))
        for i, row in enumerate(X):
            seen = ~np.isnan(row)
            scores[i] = np.linalg.lstsq(self.components_[:, seen].T, row[seen], rcond=None)[0]
        return scores
