"""Orthogonal matching pursuit: of one target, and of many signals over one dictionary."""

from __future__ import annotations

__all__ = ["GreedyRegressor", "OrthogonalMatchingPursuit", "batch_omp"]

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ..core.errors import DataError, OptionError
from ..core.options import check_whole
from . import _linear
from .design import thread_count
from .greedy import Columns, greedy_support


def batch_omp(
    dictionary: Any, signals: Any, n_nonzero: int, tolerance: float = 0.0
) -> sparse.csr_array:
    """Code many signals by orthogonal matching pursuit.

    Parameters
    ----------
    dictionary : array of shape (n_atoms, n_features)
        Atoms as rows, as in scikit-learn; scaled to unit norm inside.
    signals : array of shape (n_signals, n_features)
        What is coded. Single precision is kept if both are single.
    n_nonzero : int
        Largest number of atoms per signal.
    tolerance : float, default 0
        Stop when the squared norm of the residual is at most this.

    Returns
    -------
    csr_array of shape (n_signals, n_atoms)
        Codes, so that ``codes @ dictionary`` approximates `signals`.

    Raises
    ------
    OptionError
        If more atoms are asked for than there are, or than features.
    DataError
        If shapes differ, or values are NaN or infinite.

    References
    ----------
    Rubinstein, Zibulevsky and Elad, Efficient implementation of the K-SVD algorithm using
    batch orthogonal matching pursuit (2008).
    """
    dictionary, signals = np.asarray(dictionary), np.asarray(signals)
    if dictionary.ndim != 2 or signals.ndim != 2 or dictionary.shape[1] != signals.shape[1]:
        raise DataError(
            f"dictionary {dictionary.shape} and signals {signals.shape} must be matrices with "
            "the same number of features as columns"
        )
    dtype = np.result_type(dictionary, signals, np.float32)
    atoms = dictionary.astype(dtype, copy=False)
    signals = signals.astype(dtype, copy=False)
    check_whole("n_nonzero", n_nonzero)
    if n_nonzero > min(atoms.shape):
        raise OptionError(
            f"cannot choose {n_nonzero} of {atoms.shape[0]} atoms with {atoms.shape[1]} features; "
            f"ask for 1 to {min(atoms.shape)}"
        )
    norms = np.linalg.norm(atoms, axis=1)
    atoms = atoms / np.where(norms > 0, norms, 1)[:, None]
    squares = np.einsum("ij,ij->i", signals, signals)
    if not (np.all(np.isfinite(squares)) and np.all(np.isfinite(norms))):
        raise DataError("dictionary or signals hold NaN or infinite values")
    chosen = np.empty((len(signals), n_nonzero), dtype=np.int32)
    weights = np.zeros((len(signals), n_nonzero), dtype=dtype)
    gram = atoms @ atoms.T
    # So many signals at a time that their correlations stay in the cache.
    step = max(64, 2**20 // (atoms.itemsize * len(atoms)))
    correlations = np.empty((min(step, len(signals)), len(atoms)), dtype=dtype)
    for start in range(0, len(signals), step):
        some = slice(start, start + step)
        found = correlations[: len(signals[some])]
        np.matmul(signals[some], atoms.T, out=found)
        _linear.batch_pursuit(
            gram, found, squares[some], tolerance, chosen[some], weights[some], thread_count()
        )
    used = chosen >= 0
    starts = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    columns = chosen[used]
    values = weights[used] / norms[columns]
    return sparse.csr_array((values, columns, starts), shape=(len(signals), len(atoms)))


class GreedyRegressor(RegressorMixin, BaseEstimator):
    """What the greedy estimators share: centring, unit columns, and the refit."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _select(self, X: Any, y: np.ndarray) -> Columns:
        raise NotImplementedError

    def fit(self, X: Any, y: Any) -> GreedyRegressor:
        """Choose columns and fit their coefficients.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,)
            Target.

        Returns
        -------
        self
            With ``coef_``, ``intercept_``, ``n_iter_`` and ``support_`` in the order of
            choice.
        """
        X, y = validate_data(
            self, X, y, accept_sparse="csc", dtype=np.float64, order="F", y_numeric=True
        )
        y = y.astype(float)
        dense = X.toarray(order="F") if sparse.issparse(X) else X
        means = dense.mean(axis=0) if self.fit_intercept else np.zeros(X.shape[1])
        offset = float(y.mean()) if self.fit_intercept else 0.0
        centred = dense - means  # the one copy; what follows works in place
        largest = _largest_magnitudes(centred)
        # A constant column is not a choice; dividing by the largest entry first avoids overflow.
        varies = largest > 1e-14 * _largest_magnitudes(dense)
        centred *= np.where(varies, 1 / np.where(varies, largest, 1), 0)
        norms = np.sqrt(np.einsum("ij,ij->j", centred, centred))
        centred /= np.where(varies, norms, 1)
        columns = self._select(centred, y - offset)
        self.coef_ = np.zeros(X.shape[1])
        self.support_ = np.array(columns.chosen, dtype=int)
        scale = (norms * largest)[self.support_]
        self.coef_[self.support_] = columns.coefficients() / scale
        self.intercept_ = offset - float(means @ self.coef_)
        self.n_iter_ = max(len(columns.chosen), 1)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict the target of every row of `X`, of shape (n_samples,)."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_) + self.intercept_


def _largest_magnitudes(X: np.ndarray) -> np.ndarray:
    return np.maximum(X.max(axis=0), -X.min(axis=0))


class OrthogonalMatchingPursuit(GreedyRegressor):
    """Least squares on columns chosen one at a time by their correlation with the residual.

    Parameters
    ----------
    n_nonzero_coefs : int, optional
        How many columns at most; a tenth of them (one at least) by default, as in
        scikit-learn, and never more than samples.
    tol : float, default 0
        Stop when the norm of the residual is at most this.
    fit_intercept : bool, default True
        Whether to fit a constant.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Coefficients.
    intercept_ : float
        Constant.
    support_ : array of int
        Chosen columns, in the order of choice.
    n_iter_ : int
        How many were chosen, one at least.

    Raises
    ------
    OptionError
        If more columns are asked for than there are, or an option is out of range.

    References
    ----------
    Pati, Rezaiifar and Krishnaprasad, Orthogonal matching pursuit (1993).
    """

    def __init__(
        self, n_nonzero_coefs: int | None = None, *, tol: float = 0.0, fit_intercept: bool = True
    ) -> None:
        self.n_nonzero_coefs = n_nonzero_coefs
        self.tol = tol
        self.fit_intercept = fit_intercept

    def _select(self, X: Any, y: np.ndarray) -> Columns:
        count = self.n_nonzero_coefs
        if count is None:
            count = min(max(X.shape[1] // 10, 1), X.shape[0])
        check_whole("n_nonzero_coefs", count, least=0)
        if not self.tol >= 0:
            raise OptionError(f"tol must not be negative, got {self.tol}")
        return greedy_support(Columns(X, y), count, lambda rest: (X.T @ rest) ** 2, self.tol)
