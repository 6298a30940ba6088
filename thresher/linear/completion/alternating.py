"""Matrix completion by alternating least squares whose halves are solved approximately."""

from __future__ import annotations

__all__ = ["AlternatingCompletion"]

from typing import Any

import numpy as np
from scipy.sparse.linalg import svds
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ...core.card import Card, Catalogued
from ...core.options import check_number, check_whole
from .observed import Completion, Observed


class AlternatingCompletion(Catalogued, Completion):
    """Fills the missing entries of a matrix that is nearly of low rank.

    Alternates between the two factors of ``U V^T``. The least squares problems of all rows
    are solved at once by a few steps of preconditioned conjugate gradients from the last
    solution, so that half a sweep over m observed entries costs m times the rank and not
    its square. The paper preconditions every problem by a random sketch of it; here the
    fixed factor is kept orthonormal, so that the mean of all the Gram matrices, a multiple
    of the identity, serves them all.

    Parameters
    ----------
    rank : int, default 2
        Rank of the completed matrix; capped by its sides.
    inner : int or None, default 4
        Steps of conjugate gradients per half sweep; None solves the problems exactly.
    ridge : float, default 1e-6
        Penalty of the squared entries of the factor that is solved for, relative to the
        observed share of the matrix; positive, as a row may have fewer entries than the rank.
    tol : float, default 1e-4
        Stop when the error on the observed entries falls by less than this in a sweep,
        relative to their norm.
    max_iter : int, default 100
        Most sweeps.
    random_state : int, RandomState or None, default None
        Start of the truncated SVD.

    Attributes
    ----------
    components_ : array of shape (rank, n_features)
        Orthonormal rows that span the row space.
    share_ : float
        Observed share of the training matrix.
    errors_ : list of float
        Root mean square error on the observed entries after each sweep.
    n_iter_ : int
        Sweeps.

    Raises
    ------
    OptionError
        If `rank`, `inner` or `max_iter` is not a whole number of at least one, `ridge` not
        positive, or `tol` negative.
    DataError
        If nothing is observed.

    References
    ----------
    Gu, Song, Yin and Zhang, Low rank matrix completion via robust alternating minimization in
    nearly linear time (2023), arXiv:2302.11068, for alternating halves that are solved
    approximately.
    """

    card = Card(
        name="alternating-completion",
        title="Low Rank Matrix Completion via Robust Alternating Minimization in Nearly Linear "
        "Time",
        authors="Yuzhou Gu, Zhao Song, Junze Yin, Lichen Zhang",
        year=2023,
        arxiv="2302.11068",
        summary="alternating least squares for missing entries, with approximate updates",
    )

    def __init__(
        self,
        rank: int = 2,
        *,
        inner: int | None = 4,
        ridge: float = 1e-6,
        tol: float = 1e-4,
        max_iter: int = 100,
        random_state: Any = None,
    ) -> None:
        self.rank = rank
        self.inner = inner
        self.ridge = ridge
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit_observed(self, observed: Observed) -> tuple[np.ndarray, np.ndarray]:
        """Factorise a matrix of which only the observed entries are held.

        Parameters
        ----------
        observed : Observed
            The entries, of an n x d matrix.

        Returns
        -------
        left : array of shape (n, rank)
            Factor of the rows.
        right : array of shape (d, rank)
            Orthonormal factor of the columns: the transpose of ``components_``.
        """
        check_whole("rank", self.rank)
        if self.inner is not None:
            check_whole("inner", self.inner)
        check_number("ridge", self.ridge, above=0.0)  # a row may have fewer entries than the rank
        check_number("tol", self.tol)
        check_whole("max_iter", self.max_iter)
        other = observed.transposed()
        self.share_ = observed.values.nnz / (observed.shape[0] * observed.shape[1])
        left, right = self._start(observed)
        norm = float(np.linalg.norm(observed.values.data)) or 1.0
        self.errors_: list[float] = []
        previous = np.inf
        while len(self.errors_) < self.max_iter:
            # The new orthonormal factor spans the same space; the other follows its basis.
            left, basis = np.linalg.qr(left)
            right = self._half(other, left, right @ basis.T)
            right, basis = np.linalg.qr(right)
            left = self._half(observed, right, left @ basis.T)
            error = float(np.linalg.norm(observed.values.data - observed.at(left, right)))
            self.errors_.append(error / np.sqrt(observed.values.nnz))
            if previous - error < self.tol * norm:
                break
            previous = error
        self.components_, self.n_iter_ = right.T, len(self.errors_)
        return left, right

    def _start(self, observed: Observed) -> tuple[np.ndarray, np.ndarray]:
        """Return the leading singular pairs of the matrix with zeros at missing entries."""
        matrix = observed.values / self.share_
        rank, smallest = min(self.rank, *observed.shape), min(observed.shape)
        if 2 * rank >= smallest:
            left, values, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
            left, values, right = left[:, :rank], values[:rank], right[:rank]
        else:
            start = check_random_state(self.random_state).standard_normal(smallest)
            left, values, right = svds(matrix, k=rank, v0=start)
        return left * values, right.T

    def _half(self, observed: Observed, fixed: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Return the factor of the rows that fits best (or nearly) with `fixed` at the columns."""
        ridge = self.ridge * self.share_
        if self.inner is None:
            return _exact(observed, fixed, ridge)
        return _conjugate_gradients(observed, fixed, start, ridge, self.inner)

    def transform(self, X: Any) -> np.ndarray:
        """Fill the missing entries.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Missing entries are NaN. A row without any observed entry is filled with zeros.

        Returns
        -------
        array of shape (n_samples, n_features)
            Observed entries as they were, the others from the row space.
        """
        check_is_fitted(self)
        X = validate_data(
            self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False, copy=True
        )
        missing = np.isnan(X)
        if missing.any() and not missing.all():
            right = np.ascontiguousarray(self.components_.T)
            filled = _exact(Observed(X), right, self.ridge * self.share_) @ right.T
            X[missing] = filled[missing]
        X[np.isnan(X)] = 0.0
        return X


def _exact(observed: Observed, fixed: np.ndarray, ridge: float) -> np.ndarray:
    """Solve the least squares problem of every row by its normal equations."""
    target = observed.times(observed.values.data, fixed)
    found = np.zeros_like(target)
    penalty = ridge * np.eye(fixed.shape[1])
    starts = observed.values.indptr
    for i in np.flatnonzero(observed.counts):
        used = fixed[observed.columns[starts[i] : starts[i + 1]]]
        found[i] = np.linalg.solve(used.T @ used + penalty, target[i])
    return found


def _conjugate_gradients(
    observed: Observed, fixed: np.ndarray, start: np.ndarray, ridge: float, steps: int
) -> np.ndarray:
    """Take some steps on the normal equations of all rows at once, each with its own lengths."""
    found = start.copy()
    residual = observed.times(observed.values.data - observed.at(found, fixed), fixed)
    residual -= ridge * found
    direction = residual.copy()
    size = np.einsum("ij,ij->i", residual, residual)
    for _ in range(steps):
        applied = observed.times(observed.at(direction, fixed), fixed) + ridge * direction
        bend = np.einsum("ij,ij->i", direction, applied)
        step = np.divide(size, bend, out=np.zeros_like(size), where=bend > 0)[:, None]
        found += step * direction
        residual -= step * applied
        following = np.einsum("ij,ij->i", residual, residual)
        ratio = np.divide(following, size, out=np.zeros_like(size), where=size > 0)
        direction = residual + ratio[:, None] * direction
        size = following
    return found
