"""The positions of the survivors of a matrix that is trained sparse."""

from __future__ import annotations

__all__ = ["Rearranged", "Support"]

from typing import Any

import torch
from torch import Tensor

from ...core.errors import LayerError
from .. import _run

_MOST_FEATURES = 1 << 16


class Support:
    """The positions of the survivors of a (rows, columns) matrix, by row.

    Parameters
    ----------
    rows, columns : Tensor of int64
        Positions, (survivors,), in row-major order without repeats.
    shape : (int, int)
        Of the matrix.

    Raises
    ------
    LayerError
        If a position repeats, is out of order or lies outside, or the matrix has more than
        65,536 rows or columns.
    """

    def __init__(self, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> None:
        _check_features(shape)
        self.rows, self.columns, self.shape = rows, columns, shape
        flat = rows * shape[1] + columns
        inside = bool(((rows >= 0) & (rows < shape[0]) & (columns >= 0)).all())
        if not inside or bool((columns >= shape[1]).any()) or bool((flat.diff() <= 0).any()):
            raise LayerError(
                f"positions of a {shape[0]} x {shape[1]} support must lie inside it, in row-major "
                "order and without repeats"
            )
        self._starts = _starts(rows, shape[0])
        self._indices = columns.to(torch.uint16)

    def __reduce__(self) -> tuple[Any, ...]:
        return Support, (self.rows, self.columns, self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def bind(self, values: Tensor) -> Any:
        """Return the kernel object for the matrix with these survivors, float32."""
        return _run.Csr(self._starts, self._indices, values, *self.shape)


class Rearranged:
    """The survivors of a support as another matrix, such as the transposed one.

    Parameters
    ----------
    rows, columns : Tensor of int64
        Where each survivor is in the other matrix, (survivors,), without repeats.
    shape : (int, int)
        Of the other matrix.

    Raises
    ------
    LayerError
        If the matrix has more than 65,536 rows or columns.
    """

    def __init__(self, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> None:
        _check_features(shape)
        self._order = torch.argsort(rows * shape[1] + columns)
        self._values = torch.zeros(len(rows))
        indices = columns[self._order].to(torch.uint16)
        self._matrix = _run.Csr(_starts(rows, shape[0]), indices, self._values, *shape)

    def bind(self, values: Tensor) -> Any:
        """Return the kernel object, holding a copy of `values` until the next call."""
        torch.index_select(values.detach(), 0, self._order, out=self._values)
        return self._matrix


def _check_features(shape: tuple[int, int]) -> None:
    if max(shape) > _MOST_FEATURES:
        raise LayerError(
            f"a sparse {shape[0]} x {shape[1]} matrix has more than 65,536 rows or columns"
        )


def _starts(rows: Tensor, count: int) -> Tensor:
    starts = torch.zeros(count + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(rows, minlength=count), 0, out=starts[1:])
    return starts
