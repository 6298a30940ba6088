"""Greedy selection of columns: the loop that every matching pursuit shares."""

from __future__ import annotations

__all__ = ["Columns", "greedy_support"]

from collections.abc import Callable

import numpy as np

from ...core.errors import OptionError
from ...solve.weighted_columns import WeightedColumns

# How much the objective falls if each of all columns enters, or each of the chosen ones leaves.
Gain = Callable[["Columns"], np.ndarray]


class Columns:
    """An orthonormal basis of chosen columns, grown one at a time, and the residual outside.

    Parameters
    ----------
    X : array of shape (n, p), or WeightedColumns
        The columns, of unit norm.
    y : array of shape (n,)
        What they approximate.
    """

    def __init__(self, X: np.ndarray | WeightedColumns, y: np.ndarray) -> None:
        self.X = X
        self.target = y
        self._start()

    def _start(self) -> None:
        self.residual = np.array(self.target, dtype=float)
        self.chosen: list[int] = []
        self._basis = np.empty((len(self.residual), 0))
        self._triangle = np.empty((0, 0))
        self._products: list[float] = []

    def take(self, index: list[int] | slice) -> np.ndarray:
        """Return some columns, of shape (n, k), as a dense array."""
        if isinstance(self.X, WeightedColumns):
            return self.X.take(index)
        return np.asarray(self.X[:, index], dtype=float)

    def correlate(self) -> np.ndarray:
        """Return the products of all columns with the residual, of shape (p,)."""
        if isinstance(self.X, WeightedColumns):
            return self.X.correlate(self.residual)
        return self.X.T @ self.residual

    def add(self, j: int) -> bool:
        """Add column `j`; return False if the chosen ones already span it."""
        rest = column = self.take([j])[:, 0]
        shares = np.zeros(len(self.chosen))
        for _ in range(2):  # twice is enough to be orthogonal to working precision
            share = self._basis.T @ rest
            rest = rest - self._basis @ share
            shares += share
        length = np.linalg.norm(rest)
        if length <= 1e-10 * np.linalg.norm(column):
            return False
        size = len(self.chosen)
        triangle = np.zeros((size + 1, size + 1))
        triangle[:size, :size] = self._triangle
        triangle[:size, size] = shares
        triangle[size, size] = length
        self._triangle = triangle
        direction = rest / length
        self._basis = np.column_stack([self._basis, direction])
        product = float(direction @ self.residual)
        self.residual -= product * direction
        self._products.append(product)
        self.chosen.append(j)
        return True

    def remove(self, j: int) -> None:
        """Remove the chosen column `j`; the others are fitted anew."""
        others = [k for k in self.chosen if k != j]
        self._start()
        for k in others:
            self.add(k)

    def coefficients(self) -> np.ndarray:
        """Return the least squares coefficients of the chosen columns."""
        return np.linalg.solve(self._triangle, np.array(self._products))


def greedy_support(
    columns: Columns,
    count: int,
    gain: Gain,
    tolerance: float = 0.0,
    removal: Gain | None = None,
) -> Columns:
    """Choose columns one after another, each time refitting.

    Parameters
    ----------
    columns : Columns
        What is chosen from, and how a choice is fitted; changed in place.
    count : int
        Largest number of columns.
    gain : callable
        ``gain(columns)``: the worth of each column; the largest enters, and none if it is
        not positive.
    tolerance : float, default 0
        Add no more when the norm of the residual is at most this.
    removal : callable, optional
        ``removal(columns)``: the worth of removing each chosen column. The largest leaves where
        that is positive and worth more than any entry; both must then be falls of one
        objective, so that no choice comes back.

    Returns
    -------
    Columns
        The argument, with the choice, its residual and its coefficients.

    Raises
    ------
    OptionError
        If `count` exceeds the number of columns.
    """
    available = columns.X.shape[1]
    if not 0 <= count <= available:
        raise OptionError(f"cannot choose {count} of {available} columns; ask for 0 to {available}")
    floor = max(tolerance, 1e-12 * float(np.linalg.norm(columns.residual)))
    barred = np.zeros(available, dtype=bool)
    while True:
        entry, best = 0.0, 0
        if len(columns.chosen) < count and np.linalg.norm(columns.residual) > floor:
            worth = np.where(barred, -np.inf, gain(columns))
            best = int(np.argmax(worth))
            entry = float(worth[best])
        if removal is not None and columns.chosen:
            worth = removal(columns)
            least = int(np.argmax(worth))
            if worth[least] > max(entry, 0.0):
                columns.remove(columns.chosen[least])
                barred[:] = False  # what the old basis spanned may be new to this one
                barred[columns.chosen] = True
                continue
        if not entry > 0:
            break
        barred[best] = True  # in the basis now, or spanned by it
        columns.add(best)
    return columns
