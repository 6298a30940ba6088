"""Columns under sample weights, centred and scaled, for methods that choose among them."""

from __future__ import annotations

__all__ = ["WeightedColumns", "power_of_two"]

from typing import Any

import numpy as np
from scipy import sparse

from . import _solve
from .centring import Centring
from .design import Design, canonical

_CONSTANT = 1e-14  # what is left of a constant column by rounding, relative to its entries
_TINY = 1e-140  # numbers from here to its inverse can be squared and summed


class WeightedColumns:
    """Centred columns times the roots of the sample weights; sparse ones stay sparse.

    Parameters
    ----------
    X : array or sparse matrix of shape (n, p)
        Features; not changed. Dense ones are copied, in double precision.
    weight : array of shape (n,), optional
        Positive sample weights, so that plain sums of squares of what results are weighted
        ones; all one by default.
    centre : bool, default True
        Whether the weighted mean of every column is taken from it.
    unit : bool, default True
        Whether columns are scaled to unit norm; else all by the same number, so that their
        squares can be summed whatever their units. Constant columns become zero if centred.

    Attributes
    ----------
    roots : array of shape (n,)
        Roots of the sample weights, by which the rows are multiplied.
    averages : array of shape (p,) or None
        What was taken from the columns as given; None if they were not centred.
    scale : array of shape (p,)
        What a coefficient is divided by to go with the columns as given.
    """

    def __init__(
        self, X: Any, weight: np.ndarray | None = None, centre: bool = True, unit: bool = True
    ) -> None:
        self.roots = np.ones(X.shape[0]) if weight is None else np.sqrt(weight)
        self._weighted = weight is not None
        self._total = float(self.roots @ self.roots)
        self.centred = centre
        self.averages: np.ndarray | None = None
        if centre:
            self.averages = np.asarray(X.T @ (self.roots**2 / self._total), dtype=float)
        prepare = self._sparse if sparse.issparse(X) else self._dense
        self._matrix, self._shift, self.scale = prepare(X, unit)
        self.shape: tuple[int, int] = X.shape

    def _dense(self, X: np.ndarray, unit: bool) -> tuple:
        matrix = np.array(X, dtype=float, order="F")  # the one copy; the rest works in place
        entries: Any = 0.0
        if self.averages is not None:
            entries = _CONSTANT * _largest_magnitudes(matrix)
            matrix -= self.averages
        largest = _largest_magnitudes(matrix)
        varies, scale = largest > entries, _common(largest, unit)
        if unit and np.all((scale > _TINY) & (scale < 1 / _TINY)):
            scale = np.ones(X.shape[1])
        else:  # the squares of some columns would leave the range of numbers
            matrix *= np.where(varies, 1 / scale, 0)
        if self._weighted:
            matrix *= self.roots[:, None]
        if unit:
            norms = np.sqrt(np.einsum("ij,ij->j", matrix, matrix))
            # Where only samples of little weight differ, a column is constant too.
            varies &= norms > _CONSTANT * np.sqrt(self._total) * largest / scale
            norms = np.where(varies, norms, 1)
            matrix *= np.where(varies, 1 / norms, 0)
            scale = scale * norms
        return matrix, None, scale

    def _sparse(self, X: Any, unit: bool) -> tuple:
        matrix = canonical(sparse.csc_array(X, dtype=float, copy=True))
        column = np.repeat(np.arange(X.shape[1]), np.diff(matrix.indptr))
        largest = np.zeros(X.shape[1])
        np.maximum.at(largest, column, np.abs(matrix.data))
        scale = _common(largest, unit)
        matrix.data /= scale[column]
        shift = np.zeros(X.shape[1]) if self.averages is None else self.averages / scale
        weight = (self.roots**2)[matrix.indices]
        kept = np.bincount(column, weight, X.shape[1])
        square = np.bincount(column, weight * (matrix.data - shift[column]) ** 2, X.shape[1])
        norms = np.sqrt(square + np.maximum(self._total - kept, 0) * shift**2)
        varies = norms > (_CONSTANT * largest / scale * np.sqrt(self._total) if self.centred else 0)
        matrix.data *= self.roots[matrix.indices]
        factor = np.where(varies, 1 / np.where(varies & unit, norms, 1), 0)
        matrix.data *= factor[column]
        scale = np.where(varies & unit, scale * norms, scale)
        return matrix, (shift * factor if self.centred else None), scale

    @property
    def given(self) -> tuple[_solve.Dense64 | _solve.Csc64, _solve.Centring]:
        """What the compiled kernels take: the design, and what is taken from its columns."""
        roots = None if self._shift is None else self.roots
        return Design(self._matrix).given, _solve.Centring(roots, self._shift)

    def target(self, y: np.ndarray) -> tuple[np.ndarray, Centring]:
        """Return a target treated as the columns are, and what was taken from both."""
        mean = float(self.roots**2 @ y) / self._total if self.centred else 0.0
        return self.roots * (y - mean), Centring(self.averages, mean)

    def correlate(self, vectors: np.ndarray) -> np.ndarray:
        """Return the products of all columns with vectors of shape (n,) or (n, k)."""
        products = np.asarray(self._matrix.T @ vectors)
        if self._shift is not None:
            products -= np.multiply.outer(self._shift, self.roots @ vectors)
        return products

    def take(self, index: Any) -> np.ndarray:
        """Return some columns, of shape (n, k), as a dense array."""
        chosen = self._matrix[:, index]
        if not sparse.issparse(chosen):
            return np.asarray(chosen)
        dense = chosen.toarray()
        return dense if self._shift is None else dense - np.outer(self.roots, self._shift[index])

    def dense(self) -> np.ndarray:
        """Return all columns as a dense array."""
        return (
            self.take(np.arange(self.shape[1])) if sparse.issparse(self._matrix) else self._matrix
        )


def _common(largest: np.ndarray, unit: bool) -> np.ndarray:
    """Return what to divide the columns by: the largest entry of each, or of all."""
    if not unit:
        largest = np.full(len(largest), largest.max(initial=0.0))
    return np.where(largest > 0, largest, 1.0)


def power_of_two(largest: Any) -> np.ndarray:
    """Return powers of two near magnitudes, by which to divide without rounding; one for zero.

    Parameters
    ----------
    largest : float or array
        Not negative; what is divided lies from 1 to 2 then.
    """
    return np.where(largest > 0, np.ldexp(1.0, np.frexp(largest)[1] - 1), 1.0)


def _largest_magnitudes(X: np.ndarray) -> np.ndarray:
    return np.maximum(X.max(axis=0), -X.min(axis=0))
