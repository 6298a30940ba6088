"""Low-rank matrix completion: what the methods share about partly observed matrices."""

from __future__ import annotations

__all__ = ["Completion", "Observed"]

from abc import abstractmethod
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import validate_data

from ...core.errors import DataError


class Observed:
    """The observed entries of a matrix.

    Parameters
    ----------
    matrix : array with NaN at missing entries, or sparse matrix, of shape (n, d)
        Of a sparse matrix the stored entries are the observed ones, stored zeros included.

    Raises
    ------
    DataError
        If nothing is observed, or an observed value is infinite.
    """

    def __init__(self, matrix: Any) -> None:
        if sparse.issparse(matrix):
            self.values = matrix.tocsr().astype(float)
            self.values.sort_indices()
        else:
            matrix = np.asarray(matrix, dtype=float)
            rows, columns = np.nonzero(~np.isnan(matrix))
            starts = np.searchsorted(rows, np.arange(len(matrix) + 1))
            self.values = sparse.csr_array(
                (matrix[rows, columns], columns, starts), shape=matrix.shape
            )
        if not self.values.nnz or not np.all(np.isfinite(self.values.data)):
            raise DataError("the matrix has no observed entry, or an infinite one")
        self.shape: tuple[int, int] = self.values.shape
        self.counts = np.diff(self.values.indptr)
        self.rows = np.repeat(np.arange(self.shape[0]), self.counts)

    @property
    def columns(self) -> np.ndarray:
        """Column of every observed entry, in the order of ``values.data``."""
        return self.values.indices

    def transposed(self) -> Observed:
        """Return the entries of the transpose."""
        return Observed(self.values.T.tocsr())

    def at(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return ``left @ right.T`` at the observed entries, in their order."""
        return np.einsum("ij,ij->i", left[self.rows], right[self.columns])

    def times(self, data: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the matrix with `data` at the observed entries, times `right`."""
        matrix = sparse.csr_array((data, self.columns, self.values.indptr), shape=self.shape)
        return np.asarray(matrix @ right)


class Completion(TransformerMixin, BaseEstimator):
    """An estimator of the row space of a matrix whose missing entries are NaN."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @abstractmethod
    def fit_observed(self, observed: Observed) -> Any:
        """Find the row space of a matrix of which only some entries are held."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the row space.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Missing entries are NaN.
        y : None
            Not used.

        Returns
        -------
        self
            Fitted.
        """
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        self.fit_observed(Observed(X))
        return self
