"""The product with 16 x 32 blocks: a program takes a row of blocks, several blocks at once."""

from __future__ import annotations

__all__ = ["multiply"]

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_SPAN_OF_ONE = 8
_SPAN_OF_MANY = 4
_MOST_BYTES = 128
"""Of a column of inputs; with it the tiles fit into the shared memory of every device from 8.0."""


def multiply(
    x: Tensor,
    row_starts: Tensor,
    places: Tensor,
    values: Tensor,
    rows: int,
    bias: Tensor | None,
) -> Tensor:
    """Return ``x @ W.T + bias``.

    Parameters
    ----------
    x : Tensor
        Shape (batch, columns), contiguous.
    row_starts, places, values : Tensor
        Buffers of the layout ``blocks``.
    rows : int
        Of the matrix.
    bias : Tensor or None
        Shape (rows,), float32.

    Returns
    -------
    Tensor
        Shape (batch, rows), of the dtype of `x`, from sums in float32.
    """
    batch, columns = x.shape
    out = x.new_empty(batch, rows)
    if out.numel() == 0:
        return out
    block_rows = len(row_starts) - 1
    buffers = (x, row_starts, places, values, bias, out)
    with torch.cuda.device_of(x):
        if batch == 1:
            grid: Any = (block_rows,)
            multiply_one[grid](*buffers, rows, columns, SPAN=_SPAN_OF_ONE, num_warps=8)
        else:
            width = min(_MOST_BYTES // x.element_size(), max(16, triton.next_power_of_2(batch)))
            grid = (block_rows, triton.cdiv(batch, width))
            multiply_many[grid](*buffers, batch, rows, columns, SPAN=_SPAN_OF_MANY, BATCH=width)
    return out


@triton.jit
def take(places, values, first, end, SPAN: tl.constexpr):
    """Return SPAN blocks side by side, (16, SPAN, 32), their columns, and which are stored."""
    block = first + tl.arange(0, SPAN)
    stored = block < end
    place = tl.load(places + block, mask=stored, other=0).to(tl.int32)
    lane = tl.arange(0, 32)
    at = block[None, :, None] * 512 + tl.arange(0, 16)[:, None, None] * 32 + lane[None, None, :]
    weights = tl.load(values + at, mask=stored[None, :, None], other=0.0)
    return weights, place[:, None] * 32 + lane[None, :], stored[:, None]


@triton.jit
def multiply_one(
    x,
    row_starts,
    places,
    values,
    bias,
    out,
    rows,
    columns,
    SPAN: tl.constexpr,
):
    """Multiply one input with 16 rows; sums run along the blocks until the end."""
    first = tl.load(row_starts + tl.program_id(0))
    end = tl.load(row_starts + tl.program_id(0) + 1)
    total = tl.zeros([16, SPAN, 32], tl.float32)
    for block in range(first, end, SPAN):
        weights, column, stored = take(places, values, block, end, SPAN)
        given = tl.load(x + column, mask=stored & (column < columns), other=0.0)
        total += weights.to(tl.float32) * given.to(tl.float32)[None, :, :]
    row = tl.program_id(0) * 16 + tl.arange(0, 16)
    sums = tl.sum(tl.sum(total, axis=2), axis=1)
    if bias is not None:
        sums += tl.load(bias + row, mask=row < rows, other=0.0)
    tl.store(out + row, sums.to(out.dtype.element_ty), mask=row < rows)


@triton.jit
def multiply_many(
    x,
    row_starts,
    places,
    values,
    bias,
    out,
    batch,
    rows,
    columns,
    SPAN: tl.constexpr,
    BATCH: tl.constexpr,
):
    """Multiply BATCH inputs with 16 rows as matrices, SPAN blocks at a time."""
    first = tl.load(row_starts + tl.program_id(0))
    end = tl.load(row_starts + tl.program_id(0) + 1)
    item = (tl.program_id(1) * BATCH + tl.arange(0, BATCH)).to(tl.int64)
    total = tl.zeros([BATCH, 16], tl.float32)
    for block in range(first, end, SPAN):
        weights, column, stored = take(places, values, block, end, SPAN)
        inside = (item < batch)[:, None, None] & (stored & (column < columns))[None, :, :]
        place = item[:, None, None] * columns + column[None, :, :]
        given = tl.reshape(tl.load(x + place, mask=inside, other=0.0), [BATCH, SPAN * 32])
        flat = tl.reshape(weights, [16, SPAN * 32])
        total = tl.dot(given, tl.trans(flat), total, input_precision="ieee")
    row = tl.program_id(0) * 16 + tl.arange(0, 16)
    if bias is not None:
        total += tl.load(bias + row, mask=row < rows, other=0.0)[None, :]
    kept = (item < batch)[:, None] & (row < rows)[None, :]
    tl.store(out + item[:, None] * rows + row[None, :], total.to(out.dtype.element_ty), mask=kept)
