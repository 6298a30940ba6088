"""Design matrices as the compiled kernels take them."""

from __future__ import annotations

__all__ = ["Design", "canonical", "given_design", "kernel_threads", "thread_count"]

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from scipy import sparse

from . import _solve

# What kernel_threads set, in the thread that set it; zero for no limit.
_limit: ContextVar[int] = ContextVar("kernel threads", default=0)


class Design:
    """A matrix of features, dense (column after column) or CSC, in single or double precision.

    Parameters
    ----------
    X : array or sparse matrix of shape (n, p)
        Taken without a copy when it is already float32 or float64, and in Fortran order or
        CSC with sorted 32-bit row indices, each once.
    """

    def __init__(self, X: Any) -> None:
        dtype = np.float32 if X.dtype == np.float32 else np.float64
        self.is_sparse = sparse.issparse(X)
        if self.is_sparse:
            self.matrix = canonical(X.tocsc().astype(dtype, copy=False))
        else:
            self.matrix = np.asfortranarray(X, dtype=dtype)
        #: As the compiled kernels take it; of the same arrays where SciPy has them so.
        self.given = given_design(self.matrix)
        self.dtype: np.dtype[np.floating] = np.dtype(dtype)
        self.shape: tuple[int, int] = self.matrix.shape

    def columns(self, index: np.ndarray) -> Design:
        """Return the design of some columns (a copy of them)."""
        if len(index) == self.shape[1]:
            return self
        if self.is_sparse:
            return Design(self.matrix[:, index])
        return Design(self.matrix.T[index].T)  # copies whole columns, as they lie in memory

    def predict(self, coef: np.ndarray) -> np.ndarray:
        """Return ``X @ coef``, using only the columns with non-zero coefficients."""
        used = coef != 0 if coef.ndim == 1 else np.any(coef != 0, axis=1)
        index = np.flatnonzero(used)
        if 4 * len(index) > self.shape[1]:
            return np.asarray(self.matrix @ coef)
        return np.asarray(self.matrix[:, index] @ coef[index])

    def correlate(self, residual: np.ndarray) -> np.ndarray:
        """Return ``X.T @ residual``."""
        return np.asarray(self.matrix.T @ residual.astype(self.dtype, copy=False))

    def moments(
        self, weight: np.ndarray | None, centre: bool
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the weighted mean (None if not centred) and second moment of every column.

        Parameters
        ----------
        weight : array of shape (n,) or None
            Sample weights; None means ``1 / n`` each.
        centre : bool
            Whether the second moment is taken about the mean.
        """
        means = np.empty(self.shape[1], dtype=self.dtype)
        curvature = np.empty_like(means)
        _solve.moments(self.given, self.cast(weight), centre, means, curvature, thread_count())
        return (means if centre else None), curvature

    def cast(self, array: np.ndarray | None) -> np.ndarray | None:
        """Return a contiguous array in the precision of the design."""
        return None if array is None else np.ascontiguousarray(array, dtype=self.dtype)


def given_design(matrix: Any) -> _solve.Dense64 | _solve.Csc64:
    """Return a matrix, in Fortran order or CSC, as the compiled kernels take it."""
    single = matrix.dtype == np.float32
    if not sparse.issparse(matrix):
        return (_solve.Dense32 if single else _solve.Dense64)(matrix)
    return (_solve.Csc32 if single else _solve.Csc64)(
        np.ascontiguousarray(matrix.data),
        np.ascontiguousarray(matrix.indices, dtype=np.int32),
        np.ascontiguousarray(matrix.indptr, dtype=np.int64),
        matrix.shape[0],
    )


def canonical(matrix: Any) -> Any:
    """Return a CSC matrix whose rows are sorted and each there once; the given one if it is so.

    SciPy's formats allow entries in any order, and several for one place, which add up.
    """
    if matrix.has_canonical_format:
        return matrix
    matrix = matrix.copy()
    matrix.sum_duplicates()
    return matrix


@contextmanager
def kernel_threads(count: int) -> Iterator[None]:
    """Let the kernels use `count` threads while the context lasts, in the calling thread alone."""
    before = _limit.set(count)
    try:
        yield
    finally:
        _limit.reset(before)


def thread_count() -> int:
    """Return how many threads the kernels use.

    That is what :func:`kernel_threads` says, or ``OMP_NUM_THREADS``, or the usable cores.
    """
    if _limit.get():
        return _limit.get()
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if limit.isdigit() and int(limit) > 0:
        return int(limit)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
