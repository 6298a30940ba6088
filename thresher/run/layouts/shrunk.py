"""Matrices that lost whole rows or columns: a smaller dense matrix and where it came from."""

from __future__ import annotations

__all__ = ["Shrunk"]

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from thresher.core.errors import LayerError

from .base import Layout
from .buffers import FLOATS, Buffer, integers, outlines
from .kernel import buffer, value_dtypes


class Shrunk(Layout):
    """The rows and columns that hold a survivor, as a dense matrix for dense kernels.

    Buffers: ``rows`` and ``columns``, int64, the kept ones in increasing order; ``values``,
    (kept rows, kept columns).
    """

    name = "shrunk"

    def __init__(self, shape: tuple[int, int], rows: Tensor, columns: Tensor, values: Tensor):
        super().__init__(shape, values.dtype)
        self._rows, self._columns, self._values = rows, columns, values

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse matrices that keep more than 95 % of rows times columns."""
        kept = weight != 0
        area = int(kept.any(1).sum()) * int(kept.any(0).sum())
        return "no rows or columns to speak of are empty" if area > 0.95 * weight.numel() else None

    @classmethod
    def refusal_on(cls, device: torch.device) -> str | None:
        """Refuse no device: the smaller product is torch's own."""
        return None

    @classmethod
    def example(cls, weight: Tensor) -> Tensor | None:
        """Empty every third row and column."""
        mask = torch.ones_like(weight)
        mask[::3] = 0
        mask[:, ::3] = 0
        return weight * mask

    @classmethod
    def from_dense(cls, weight: Tensor) -> Self:
        """Pack a dense matrix."""
        kept = weight.detach() != 0
        rows, columns = kept.any(1).nonzero()[:, 0], kept.any(0).nonzero()[:, 0]
        values = weight.detach()[rows][:, columns].contiguous()
        return cls((weight.shape[0], weight.shape[1]), rows, columns, values)

    @classmethod
    def expected(cls, shape: tuple[int, int], settings: Mapping[str, int]) -> dict[str, Buffer]:
        """Return what the kept rows and columns and their matrix must look like."""
        integers(settings)
        return {
            "rows": Buffer((torch.int64,), ("kept rows",)),
            "columns": Buffer((torch.int64,), ("kept columns",)),
            "values": Buffer(FLOATS, ("kept rows", "kept columns")),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], settings: Mapping[str, int]
    ) -> Self:
        """Bind stored buffers; see :meth:`thresher.run.layouts.base.Layout.from_tensors`."""
        cls.check(outlines(tensors), shape, settings)
        values = buffer(tensors, "values", *value_dtypes)
        kept = [buffer(tensors, name, torch.int64) for name in ("rows", "columns")]
        for name, places, limit in zip(("rows", "columns"), kept, shape, strict=True):
            inside = bool(((places >= 0) & (places < limit)).all())
            if not inside or bool((places.diff() <= 0).any()):
                raise LayerError(
                    f"tensor {name!r} of a packed layer does not name increasing {name} "
                    f"below {limit}"
                )
        return cls(shape, kept[0], kept[1], values)

    def tensors(self) -> dict[str, Tensor]:
        """Return the stored buffers by name."""
        return {"rows": self._rows, "columns": self._columns, "values": self._values}

    def to_dense(self) -> Tensor:
        """Return the dense matrix."""
        dense = self._values.new_zeros(self.shape)
        dense[self._rows[:, None], self._columns] = self._values
        return dense

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x @ W.T + bias`` from a dense product of the smaller shapes."""
        inner = x if len(self._columns) == self.shape[1] else x.index_select(-1, self._columns)
        small = nn.functional.linear(inner, self._values)
        if len(self._rows) < self.shape[0]:
            out = x.new_zeros(*x.shape[:-1], self.shape[0])
            small = out.index_copy_(-1, self._rows, small)
        return small if bias is None else (small + bias).to(self.dtype)
