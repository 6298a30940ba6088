"""Orthogonal matching pursuit where dictionary and support are Kronecker products."""

from __future__ import annotations

__all__ = ["checked_factors", "kronecker_omp"]

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from ...core.errors import DataError, OptionError
from ...core.options import check_count
from ..greedy.columns import Columns


def checked_factors(factors: Sequence[Any], y: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the factors of a dictionary and what was measured, as arrays that fit together.

    Parameters
    ----------
    factors : sequence of arrays or sparse matrices of shape (n_i, p_i)
        The factors.
    y : array of shape (n_1 * ... * n_m,)
        What was measured.

    Raises
    ------
    DataError
        If there is no factor, shapes do not fit, or values are NaN or infinite.
    """
    try:
        matrices = [
            np.asarray(factor.toarray() if sparse.issparse(factor) else factor, dtype=float)
            for factor in factors
        ]
        y = np.asarray(y, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"factors must be a list of matrices and y numbers: {error}") from None
    if not matrices:
        raise DataError("factors is empty; pass the matrices whose Kronecker product is meant")
    shapes = [matrix.shape for matrix in matrices]
    if any(matrix.ndim != 2 or matrix.size == 0 for matrix in matrices):
        raise DataError(f"factors must be matrices with rows and columns, got shapes {shapes}")
    rows = int(np.prod([shape[0] for shape in shapes]))
    if y.shape != (rows,):
        raise DataError(f"factors of shapes {shapes} need a y of {rows} entries, got {y.shape}")
    if not all(np.all(np.isfinite(values)) for values in (*matrices, y)):
        raise DataError("factors or y hold NaN or infinite values; remove them")
    return matrices, y


def kronecker_omp(factors: Sequence[Any], y: Any, counts: Sequence[int]) -> np.ndarray:
    """Recover ``x`` from ``y = kron(H_1, ..., H_m) x + noise`` with a Kronecker support (KOMP).

    Each step takes the column of the dictionary that correlates most with the residual, adds
    its index to the set of every factor, and fits all columns in the product of the sets.

    Parameters
    ----------
    factors : sequence of arrays or sparse matrices of shape (n_i, p_i)
        The factors of the dictionary.
    y : array of shape (n_1 * ... * n_m,)
        What was measured.
    counts : sequence of int
        How many columns of each factor at most.

    Returns
    -------
    array of shape (p_1 * ... * p_m,)
        The coefficients.

    Raises
    ------
    OptionError
        If `counts` does not name a number of columns for every factor.
    DataError
        If the shapes do not fit, or values are NaN or infinite.

    References
    ----------
    Caiafa and Cichocki, Computing sparse representations of multidimensional signals using
    Kronecker bases (2013).
    """
    matrices, y = checked_factors(factors, y)
    shape = [matrix.shape[1] for matrix in matrices]
    if np.ndim(counts) != 1 or len(counts) != len(shape):
        raise OptionError(f"counts must be {len(shape)} numbers, one per factor, got {counts!r}")
    for place, (count, size) in enumerate(zip(counts, shape, strict=True)):
        check_count(f"counts[{place}]", count, size)
    norms = [np.linalg.norm(matrix, axis=0) for matrix in matrices]
    unit = [m / np.where(norm > 0, norm, 1) for m, norm in zip(matrices, norms, strict=True)]
    dictionary: np.ndarray = functools.reduce(np.kron, unit)
    columns = Columns(dictionary, y)
    sets: list[list[int]] = [[] for _ in shape]
    floor = 1e-12 * float(np.linalg.norm(y))
    while np.linalg.norm(columns.residual) > floor:
        worth = np.abs(columns.correlate()).reshape(shape)
        for axis, (chosen, count) in enumerate(zip(sets, counts, strict=True)):
            if len(chosen) == count:  # a full set takes no other index
                worth = _only(worth, axis, chosen)
        worth[np.ix_(*sets)] = 0  # fitted already
        best = np.unravel_index(int(np.argmax(worth)), worth.shape)
        if not worth[best] > 0:
            break
        for chosen, index in zip(sets, best, strict=True):
            if index not in chosen:
                chosen.append(int(index))
        product = np.ravel_multi_index(np.ix_(*sets), shape).ravel()
        for j in np.setdiff1d(product, columns.chosen):
            columns.add(int(j))
    found = np.zeros(columns.X.shape[1])
    scale = functools.reduce(np.kron, norms)
    found[columns.chosen] = columns.coefficients() / scale[columns.chosen]
    return found


def _only(worth: np.ndarray, axis: int, kept: list[int]) -> np.ndarray:
    """Return the worth with zeros outside some indices of an axis."""
    inside = np.zeros(worth.shape[axis])
    inside[kept] = 1
    return worth * np.expand_dims(inside, [a for a in range(worth.ndim) if a != axis])
