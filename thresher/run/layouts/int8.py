"""Blocks of 4 rows and 1 column in 8 bits, for integer dot products."""

from __future__ import annotations

__all__ = ["Int8Blocks"]

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from thresher.core.card import Card, Catalogued
from thresher.core.errors import LayerError

from .. import _run
from .buffers import FLOATS, Buffer, integers
from .kernel import KernelLayout, refuse_outside, value_dtypes

ROWS = 4
"""Rows of a block, and columns of a group of blocks."""
_LEVELS = 127
_COLUMNS = 1 << 16


def _blocked(weight: Tensor) -> Tensor:
    """Return a matrix as (row blocks, columns, 4), both padded with zeros to multiples of 4."""
    padded = nn.functional.pad(weight, (0, -weight.shape[1] % ROWS, 0, -weight.shape[0] % ROWS))
    return padded.reshape(padded.shape[0] // ROWS, ROWS, padded.shape[1]).transpose(1, 2)


class Int8Blocks(KernelLayout, Catalogued):
    """Blocks of 4 consecutive outputs of one input, in 8 bits, for batches of 1 to 64.

    A weight is ``scale * code`` with a code from -127 to 127 and one scale per row. Inputs are
    rounded as they come in, each to 127 levels on both sides of zero and a scale of its own
    (dynamic quantisation); sums of products of integers are exact. At density ``d`` a matrix
    takes ``1.5 d`` bytes per weight.

    Buffers: ``row_starts``, int64 (ceil(rows / 4) + 1,), in groups of four blocks; ``columns``,
    uint16 (groups, 4), increasing within a row of blocks; ``values``, int8 (groups, 4, 4), by
    row and then column; ``scales``, (rows,), of the dtype of inputs and outputs. The last group
    of a row of blocks is filled with blocks of zeros.

    Notes
    -----
    The source multiplies four gathered rows of the input at a time with VNNI, the batch along
    the lanes, and generates code for every shape; this kernel does the former and is compiled
    once. Its fusion of neighbouring operations is not here.
    """

    name = "int8-4x1"
    exact = False
    input_levels = _LEVELS
    card = Card(
        name="itrex",
        title="An Efficient Sparse Inference Software Accelerator for Transformer-based Language "
        "Models on CPUs",
        authors="Haihao Shen et al.",
        year=2023,
        arxiv="2306.16601",
        summary="Layout and kernel for int8 weights pruned in blocks of 4 outputs by 1 input",
    )

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse matrices with more than 65,536 columns."""
        return f"more than {_COLUMNS:,} columns" if weight.shape[1] > _COLUMNS else None

    @classmethod
    def example(cls, weight: Tensor) -> Tensor | None:
        """Keep whole blocks: those whose first weight survives."""
        mask = (_blocked(weight)[:, :, 0] != 0).repeat_interleave(ROWS, dim=0)
        filled = torch.where(weight == 0, torch.ones_like(weight), weight)
        return filled * mask[: weight.shape[0], : weight.shape[1]]

    @classmethod
    def from_dense(cls, weight: Tensor) -> Self:
        """Drop the blocks that are zero and round the others to 8 bits."""
        if reason := cls.refusal(weight):
            raise LayerError(f"a matrix of shape {tuple(weight.shape)} does not fit: {reason}")
        weight = weight.detach()
        largest = weight.abs().amax(1) if weight.shape[1] else weight.new_zeros(len(weight))
        scales = (largest.float() / _LEVELS).to(weight.dtype)
        steps = scales.float().clamp(min=torch.finfo(torch.float32).tiny)
        codes = (weight.float() / steps[:, None]).round().clamp(-_LEVELS, _LEVELS)
        blocks = _blocked(codes.to(torch.int8))
        order, counts = _fill_groups(_blocked(weight).ne(0).any(-1))
        starts = torch.zeros(len(blocks) + 1, dtype=torch.int64)
        torch.cumsum(counts // ROWS, 0, out=starts[1:])
        rows = torch.repeat_interleave(torch.arange(len(blocks)), counts)
        tensors = {
            "row_starts": starts,
            "columns": order.reshape(-1, ROWS).to(torch.uint16),
            "values": blocks[rows, order].reshape(-1, ROWS, ROWS).transpose(1, 2).contiguous(),
            "scales": scales,
        }
        return cls(tensors, (weight.shape[0], weight.shape[1]), {})

    @classmethod
    def expected(cls, shape: tuple[int, int], settings: Mapping[str, int]) -> dict[str, Buffer]:
        """Return what row starts, columns, values and scales must look like."""
        integers(settings)
        return {
            "row_starts": Buffer((torch.int64,), (-(-shape[0] // ROWS) + 1,)),
            "columns": Buffer((torch.uint16,), ("groups", ROWS)),
            "values": Buffer((torch.int8,), ("groups", ROWS, ROWS)),
            "scales": Buffer(FLOATS, (shape[0],)),
        }

    def bind(self) -> Any:
        """Bind row starts, columns, values and scales."""
        scales = self.take("scales", *value_dtypes)
        self.dtype = scales.dtype
        starts = self.take("row_starts", torch.int64)
        columns = self.take("columns", torch.uint16)
        values = self.take("values", torch.int8)
        matrix = _run.Int8Blocks(starts, columns, values, scales, *self.shape)
        if below := self.shape[0] % ROWS:
            refuse_outside(values[int(starts[-2]) :, below:], "values")
        if self.shape[1] % ROWS:
            outside = columns.int() >= self.shape[1]
            refuse_outside(values.transpose(1, 2)[outside], "values")
        return matrix

    def codes(self) -> Tensor:
        """Return the integers as a dense int8 matrix."""
        rows, columns = self.shape
        shape = (-(-rows // ROWS), -(-columns // ROWS) * ROWS, ROWS)
        blocks = torch.zeros(shape, dtype=torch.int8, device=self.device)
        counts = self._tensors["row_starts"].diff() * ROWS
        at = torch.arange(len(blocks), device=self.device).repeat_interleave(counts)
        values = self._tensors["values"].transpose(1, 2).reshape(-1, ROWS)
        blocks[at, self._tensors["columns"].long().flatten()] = values
        return blocks.transpose(1, 2).flatten(0, 1)[:rows, :columns].contiguous()

    def to_dense(self) -> Tensor:
        """Return the dense matrix, rounded to its dtype."""
        scales = self._tensors["scales"].float()
        return (self.codes().float() * scales[:, None]).to(self.dtype)


def _fill_groups(kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the columns of the blocks in row order, a multiple of four a row, and their counts.

    Rows of blocks are filled with their first empty columns, which hold zeros.
    """
    counts = kept.sum(1)
    missing = -counts % ROWS
    empty_so_far = (~kept).cumsum(1)
    filled = kept | (empty_so_far <= missing[:, None]) & ~kept
    return filled.nonzero()[:, 1], counts + missing
