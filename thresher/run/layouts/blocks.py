"""Dense blocks of 16 rows and 32 columns: the shape of a tile of bfloat16 weights."""

from __future__ import annotations

__all__ = ["Blocks"]

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from .. import _run, cuda
from .buffers import FLOATS, Buffer, integers
from .kernel import KernelLayout, refuse_outside, value_dtypes

ROWS, COLUMNS = 16, 32


def _blocked(weight: Tensor) -> Tensor:
    """Return a matrix as (block rows, block columns, 16, 32), padded with zeros."""
    rows, columns = weight.shape
    padded = nn.functional.pad(weight, (0, -columns % COLUMNS, 0, -rows % ROWS))
    shape = (padded.shape[0] // ROWS, ROWS, padded.shape[1] // COLUMNS, COLUMNS)
    return padded.reshape(shape).transpose(1, 2)


class Blocks(KernelLayout):
    """Only those 16 x 32 blocks that hold a survivor, for block sparsity at larger batches.

    Blocks of 32, 64 or more rows and columns that start at multiples of 16 and 32 fit as well.
    Buffers: ``row_starts``, int64 (ceil(rows / 16) + 1,); ``places``, uint16 (blocks,), the
    block column of each; ``values``, (blocks, 16, 32), zero outside the matrix.
    """

    name = "blocks"

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse matrices of which nearly every block holds a survivor."""
        if weight.shape[1] > COLUMNS << 16:
            return "too many columns"
        kept = _blocked(weight).ne(0).any(dim=(2, 3))
        # Blocks at the edges are stored whole.
        taken = int(kept.sum()) * ROWS * COLUMNS
        if taken > 0.95 * weight.numel():
            return "hardly any 16 x 32 block is empty"
        return None

    @classmethod
    def refusal_on(cls, device: torch.device) -> str | None:
        """Refuse devices other than the CPU and, where Triton is installed, CUDA."""
        return cuda.refusal(device)

    @classmethod
    def example(cls, weight: Tensor) -> Tensor | None:
        """Keep the survivors of every other block, as on a chessboard."""
        rows = torch.arange(weight.shape[0], device=weight.device) // ROWS
        columns = torch.arange(weight.shape[1], device=weight.device) // COLUMNS
        return weight * ((rows[:, None] + columns) % 2 == 0)

    @classmethod
    def from_dense(cls, weight: Tensor) -> Self:
        """Pack a dense matrix."""
        blocks = _blocked(weight.detach())
        kept = blocks.ne(0).any(3).any(2)
        starts = torch.zeros(kept.shape[0] + 1, dtype=torch.int64)
        torch.cumsum(kept.sum(1), 0, out=starts[1:])
        tensors = {
            "row_starts": starts,
            "places": kept.nonzero()[:, 1].to(torch.uint16),
            "values": blocks[kept],
        }
        return cls(tensors, (weight.shape[0], weight.shape[1]), {})

    @classmethod
    def expected(cls, shape: tuple[int, int], settings: Mapping[str, int]) -> dict[str, Buffer]:
        """Return what row starts, places and blocks must look like."""
        integers(settings)
        return {
            "row_starts": Buffer((torch.int64,), (-(-shape[0] // ROWS) + 1,)),
            "places": Buffer((torch.uint16,), ("blocks",)),
            "values": Buffer(FLOATS, ("blocks", ROWS, COLUMNS)),
        }

    def bind(self) -> Any:
        """Bind row starts, places and blocks."""
        starts = self.take("row_starts", torch.int64)
        places = self.take("places", torch.uint16)
        values = self.take("values", *value_dtypes)
        self.dtype = values.dtype
        matrix = _run.Blocks(starts, places, values, *self.shape)
        below, (whole, beside) = self.shape[0] % ROWS, divmod(self.shape[1], COLUMNS)
        if below:
            refuse_outside(values[int(starts[-2]) :, below:], "values")
        if beside:
            refuse_outside(values[places.int() == whole, :, beside:], "values")
        return matrix

    def multiply_on_cuda(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x @ W.T + bias`` from the Triton kernel."""
        starts, places, values = (self._tensors[n] for n in ("row_starts", "places", "values"))
        kernels = cuda.kernels(self.name)
        product: Tensor = kernels.multiply(x, starts, places, values, self.shape[0], bias)
        return product

    def to_dense(self) -> Tensor:
        """Return the dense matrix."""
        rows, columns = self.shape
        block_rows, block_columns = -(-rows // ROWS), -(-columns // COLUMNS)
        shape = (block_rows, block_columns, ROWS, COLUMNS)
        blocks = torch.zeros(shape, dtype=self.dtype, device=self.device)
        counts = self._tensors["row_starts"].diff()
        at = torch.arange(block_rows, device=self.device).repeat_interleave(counts)
        blocks[at, self._tensors["places"].long()] = self._tensors["values"]
        dense = blocks.transpose(1, 2).reshape(block_rows * ROWS, block_columns * COLUMNS)
        return dense[:rows, :columns].contiguous()
