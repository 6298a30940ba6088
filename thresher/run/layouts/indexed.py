"""CSR and constant fan-in: the survivors in row order with the column of each."""

from __future__ import annotations

__all__ = ["ConstantFanIn", "Csr", "too_dense", "too_wide"]

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from thresher.core.errors import LayerError
from thresher.core.top_k import top_k_mask

from .. import _run
from .buffers import FLOATS, Buffer, integers
from .convolving import ConvolvingLayout
from .kernel import KernelLayout, value_dtypes

_COLUMNS = 1 << 16

too_dense = "too dense: columns and values take more bytes than the dense matrix"


def too_wide(weight: Tensor) -> str | None:
    """Return why 16-bit columns cannot name all columns of a matrix, or None."""
    if weight.shape[1] > _COLUMNS:
        return f"more than {_COLUMNS:,} columns: positions are stored in 16 bits"
    return None


class Csr(ConvolvingLayout):
    """Compressed sparse rows with 16-bit columns, for unstructured sparsity of 90 % and more.

    Buffers: ``row_starts``, int64 (rows + 1,); ``indices``, uint16 (survivors,), the column of
    each; ``values``, (survivors,). A bfloat16 survivor takes 4 bytes, against 8 in CSR with
    32-bit columns and float32 values.
    """

    name = "csr"

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse matrices that are too wide for 16 bits or too dense to save bytes."""
        kept = int(torch.count_nonzero(weight))
        if kept * (weight.element_size() + 2) >= weight.numel() * weight.element_size():
            return too_dense
        return too_wide(weight)

    @classmethod
    def from_dense(cls, weight: Tensor) -> Self:
        """Pack a dense matrix; LayerError when it has more than 65,536 columns."""
        if reason := too_wide(weight):
            raise LayerError(f"a matrix of shape {tuple(weight.shape)} does not fit csr: {reason}")
        weight = weight.detach()
        kept = weight != 0
        starts = torch.zeros(weight.shape[0] + 1, dtype=torch.int64)
        torch.cumsum(kept.sum(1), 0, out=starts[1:])
        columns = kept.nonzero()[:, 1].to(torch.uint16)
        tensors = {"row_starts": starts, "indices": columns, "values": weight[kept]}
        return cls(tensors, (weight.shape[0], weight.shape[1]), {})

    @classmethod
    def expected(cls, shape: tuple[int, int], settings: Mapping[str, int]) -> dict[str, Buffer]:
        """Return what row starts, columns and values must look like."""
        integers(settings)
        return {
            "row_starts": Buffer((torch.int64,), (shape[0] + 1,)),
            "indices": Buffer((torch.uint16,), ("survivors",)),
            "values": Buffer(FLOATS, ("survivors",)),
        }

    def bind(self) -> Any:
        """Bind row starts, columns and values."""
        starts = self.take("row_starts", torch.int64)
        indices = self.take("indices", torch.uint16)
        values = self.take("values", *value_dtypes)
        self.dtype = values.dtype
        return _run.Csr(starts, indices, values, *self.shape)

    def to_dense(self) -> Tensor:
        """Return the dense matrix."""
        dense = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        counts = self._tensors["row_starts"].diff()
        rows = torch.arange(self.shape[0], device=self.device).repeat_interleave(counts)
        dense[rows, self._tensors["indices"].long()] = self._tensors["values"]
        return dense


class ConstantFanIn(KernelLayout):
    """The same number of survivors in every row, as SRigL leaves them.

    Buffers: ``indices``, uint16 (rows, fan-in), the columns; ``values``, (rows, fan-in). Rows
    with fewer survivors than the fullest are filled with explicit zeros. Setting: ``fan_in``.
    """

    name = "fan-in"

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse matrices whose rows differ, or that would take more bytes than dense."""
        counts = (weight != 0).sum(1)
        if counts.numel() and int(counts.min()) != int(counts.max()):
            return "rows have different numbers of survivors"
        return Csr.refusal(weight)

    @classmethod
    def example(cls, weight: Tensor) -> Tensor | None:
        """Keep the same number of largest weights in every row."""
        fan_in = int((weight != 0).sum() // max(1, weight.shape[0]))
        return weight * top_k_mask(weight.abs(), fan_in)

    @classmethod
    def from_dense(cls, weight: Tensor) -> Self:
        """Pack a dense matrix; LayerError when it has more than 65,536 columns."""
        if reason := too_wide(weight):
            raise LayerError(
                f"a matrix of shape {tuple(weight.shape)} does not fit fan-in: {reason}"
            )
        weight = weight.detach()
        kept = weight != 0
        fan_in = int(kept.sum(1).max()) if weight.numel() else 0
        # A stable sort of "is zero" puts the survivors first, in column order.
        order = (~kept).to(torch.uint8).sort(dim=1, stable=True).indices[:, :fan_in]
        order = order.sort(dim=1).values
        tensors = {
            "indices": order.to(torch.uint16).contiguous(),
            "values": weight.gather(1, order),
        }
        return cls(tensors, (weight.shape[0], weight.shape[1]), {"fan_in": fan_in})

    @classmethod
    def expected(cls, shape: tuple[int, int], settings: Mapping[str, int]) -> dict[str, Buffer]:
        """Return what columns and values must look like."""
        (fan_in,) = integers(settings, "fan_in")
        if fan_in > min(shape[1], _COLUMNS):
            raise LayerError(f"a fan-in of {fan_in} is more than {shape[1]} columns can have")
        return {
            "indices": Buffer((torch.uint16,), (shape[0], fan_in)),
            "values": Buffer(FLOATS, (shape[0], fan_in)),
        }

    def bind(self) -> Any:
        """Bind columns and values."""
        indices = self.take("indices", torch.uint16)
        values = self.take("values", *value_dtypes)
        self.dtype = values.dtype
        return _run.FanIn(indices, values, *self.shape, self.setting("fan_in"))

    def to_dense(self) -> Tensor:
        """Return the dense matrix."""
        dense = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        return dense.scatter_(1, self._tensors["indices"].long(), self._tensors["values"])
