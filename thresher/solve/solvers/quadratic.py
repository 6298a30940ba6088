"""A weighted least squares problem as the compiled descents take it."""

from __future__ import annotations

__all__ = ["Quadratic", "block_curvature", "grams"]

from dataclasses import dataclass

import numpy as np

from .. import _solve
from ..design import Design
from ..penalties import Grouped


@dataclass(frozen=True)
class Quadratic:
    """``sum_i weight_i / 2 (target_i - X_i w - intercept)^2``, the intercept minimised away.

    Parameters
    ----------
    design : Design
        Features of shape (n, p).
    target : array of shape (n,) or (n, outputs)
        What is fitted; not read where the residual is given.
    weight : array of shape (n,) or None
        None means ``1 / n`` each.
    means : array of shape (p,) or None
        Weighted column means; None without an intercept.
    curvature : array of shape (p,)
        Weighted (centred) second moment of every column.
    residual : array of the shape of the target, optional
        ``weight (target - X w)`` at the coefficients that a descent starts from. Newton steps
        know it, and it has digits that their targets, large where the weight is small, lack.
    """

    design: Design
    target: np.ndarray
    weight: np.ndarray | None
    means: np.ndarray | None
    curvature: np.ndarray
    residual: np.ndarray | None = None

    @classmethod
    def weighted(
        cls, design: Design, target: np.ndarray, weight: np.ndarray | None, centre: bool
    ) -> Quadratic:
        """Compute the moments under the weights."""
        return cls(design, target, weight, *design.moments(weight, centre))

    @classmethod
    def of_residual(
        cls, design: Design, residual: np.ndarray, weight: np.ndarray, centre: bool
    ) -> Quadratic:
        """Compute the moments under the weights."""
        return cls(design, residual, weight, *design.moments(weight, centre), residual)

    def given(self, curvature: np.ndarray | None = None) -> _solve.Quadratic64:
        """Return the problem as the compiled descents take it.

        Parameters
        ----------
        curvature : array of shape (blocks,), optional
            That of blocks, for descents over these; of the columns by default.
        """
        kind = _solve.Quadratic32 if self.design.dtype == np.float32 else _solve.Quadratic64
        return kind(
            target=self.design.cast(self.target.T),
            weights=self.design.cast(self.weight),
            means=self.means,
            curvature=self.curvature if curvature is None else curvature,
            residual=None if self.residual is None else self.design.cast(self.residual.T),
        )


def block_curvature(quadratic: Quadratic, penalty: Grouped) -> np.ndarray:
    """Return the largest eigenvalue of every group's weighted (centred) Gram matrix.

    Parameters
    ----------
    quadratic : Quadratic
        The least squares problem.
    penalty : Grouped
        Its groups, all of the design's columns.

    Returns
    -------
    array of shape (n_groups,)
        The curvature bound of each block.
    """
    starts, members = penalty.members
    sizes = np.diff(starts)
    result = np.empty(len(sizes), dtype=quadratic.design.dtype)
    for size in np.unique(sizes):
        blocks = np.flatnonzero(sizes == size)
        if size == 1:
            result[blocks] = quadratic.curvature[members[starts[blocks]]]
            continue
        # A few groups at a time keeps the copy of their columns small.
        for some in np.array_split(blocks, -(-len(blocks) * size // 1000)):
            columns = members[starts[some][:, None] + np.arange(size)]
            result[some] = np.linalg.eigvalsh(grams(quadratic, columns))[:, -1]
    # Rounding must not turn the bound into an underestimate, nor a zero block into noise.
    bound = np.add.reduceat(quadratic.curvature[members], starts[:-1])
    noise = 1e-12 if result.dtype == np.float64 else 1e-5
    return np.where(bound > 0, np.minimum(np.maximum(result, 0) * (1 + noise), bound), 0.0).astype(
        result.dtype
    )


def grams(quadratic: Quadratic, columns: np.ndarray) -> np.ndarray:
    """Return the weighted (centred) Gram matrix of blocks of equal size.

    Parameters
    ----------
    quadratic : Quadratic
        The least squares problem.
    columns : array of int of shape (blocks, size)
        The columns of each block.

    Returns
    -------
    array of shape (blocks, size, size)
        In the precision of the design.
    """
    count, size = columns.shape
    index, matrix = columns.ravel(), quadratic.design.matrix
    # Columns as rows: whole columns are copied as they lie in memory.
    block = matrix[:, index].toarray().T if quadratic.design.is_sparse else matrix.T[index]
    if quadratic.means is not None:
        block = block - quadratic.means[index, None]
    if quadratic.weight is not None:
        block = block * np.sqrt(quadratic.weight).astype(block.dtype)
    stacked = block.reshape(count, size, -1)
    products = stacked @ stacked.transpose(0, 2, 1)
    return products / block.dtype.type(block.shape[1]) if quadratic.weight is None else products
