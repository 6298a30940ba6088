"""The product with a bitmask: weights are put in their places in registers.

A program takes a few rows and goes through their columns in chunks. For a byte of the mask a
multiplication gives the number of ones below each of its bits, a prefix sum over the bytes the
ones before it, and a table the place of the chunk's first value; so every weight knows its place
without asking another, and every value is loaded once. The table takes 1/64 of the bytes of a dense
bfloat16 matrix, besides the buffers.
"""

from __future__ import annotations

__all__ = ["chunk_starts", "multiply"]

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_TABLE_BYTES = tl.constexpr(16)
"""Of the mask, for each entry of the table of starts: 128 columns."""
_ROWS_OF_ONE, _BYTES_OF_ONE = 4, 128
_ROWS_OF_MANY = 16
_BYTES_OF_MANY = {torch.bfloat16: 32, torch.float32: 16}
"""In float32 no tensor core helps, and a thread keeps the columns of a chunk in registers."""
_MOST_BATCH = 32


def chunk_starts(mask: Tensor) -> Tensor:
    """Return where in ``values`` the survivors of every 128 columns of each row begin.

    Parameters
    ----------
    mask : Tensor
        uint8, (rows, bytes), as the layout ``bitmask`` stores it, with zeros past the columns.

    Returns
    -------
    Tensor
        int32, or int64 for 2^31 survivors and more, (rows, ceil(columns / 128)).
    """
    ones = torch.tensor([byte.bit_count() for byte in range(256)], device=mask.device)
    rows, width = mask.shape
    step = _TABLE_BYTES.value
    padded = torch.nn.functional.pad(mask, (0, -width % step))
    counts = ones[padded.long()].reshape(rows, padded.shape[1] // step, step).sum(-1)
    ends = counts.flatten().cumsum(0)
    small = ends.numel() == 0 or int(ends[-1]) < 1 << 31
    starts = (ends - counts.flatten()).reshape(counts.shape)
    return starts.to(torch.int32 if small else torch.int64)


def multiply(
    x: Tensor, mask: Tensor, values: Tensor, starts: Tensor, rows: int, bias: Tensor | None
) -> Tensor:
    """Return ``x @ W.T + bias``.

    Parameters
    ----------
    x : Tensor
        Shape (batch, columns), contiguous.
    mask, values : Tensor
        Buffers of the layout ``bitmask``.
    starts : Tensor
        What :func:`chunk_starts` returns for `mask`.
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
    buffers = (x, mask, values, starts, bias, out)
    sizes = (rows, columns, starts.shape[1], mask.shape[1])
    with torch.cuda.device_of(x):
        if batch == 1:
            grid: Any = (triton.cdiv(rows, _ROWS_OF_ONE),)
            multiply_one[grid](*buffers, *sizes, ROWS=_ROWS_OF_ONE, BYTES=_BYTES_OF_ONE)
        else:
            width = min(_MOST_BATCH, max(16, triton.next_power_of_2(batch)))
            grid = (triton.cdiv(rows, _ROWS_OF_MANY), triton.cdiv(batch, width))
            chunk = _BYTES_OF_MANY[x.dtype]
            multiply_many[grid](
                *buffers, batch, *sizes, ROWS=_ROWS_OF_MANY, BYTES=chunk, BATCH=width
            )
    return out


@triton.jit
def expand(mask, values, starts, row, chunk, rows, entries, width, BYTES: tl.constexpr):
    """Return the weights of some rows and one chunk of columns, (rows, bytes, 8), and zeros."""
    at = chunk * BYTES + tl.arange(0, BYTES)
    inside = (row < rows)[:, None] & (at < width)[None, :]
    bits = tl.load(mask + row[:, None] * width + at[None, :], mask=inside, other=0).to(tl.uint32)
    # Bit j of the byte goes to bit 4 j; the product then holds in its digit j how many of the
    # bits 0 to j are ones, at most 8, so that no digit carries into the next.
    bits = (bits | (bits << 12)) & 0x000F000F
    bits = (bits | (bits << 6)) & 0x03030303
    bits = (bits | (bits << 3)) & 0x11111111
    ones = bits * 0x11111111
    of_byte = (ones >> 28).to(tl.int32)
    before = tl.cumsum(of_byte, axis=1) - of_byte
    entry = chunk * (BYTES // _TABLE_BYTES)
    start = tl.load(starts + row * entries + entry, mask=row < rows, other=0).to(tl.int64)
    digit = 4 * tl.arange(0, 8).to(tl.uint32)[None, None, :]
    below = ((ones << 4)[:, :, None] >> digit) & 15
    # The mask has no ones past the last column: binding the layout has checked that.
    kept = ((bits[:, :, None] >> digit) & 1).to(tl.int1)
    place = before[:, :, None] + below.to(tl.int32)
    return tl.load(values + start[:, None, None] + place, mask=kept, other=0.0)


@triton.jit
def multiply_one(
    x,
    mask,
    values,
    starts,
    bias,
    out,
    rows,
    columns,
    entries,
    width,
    ROWS: tl.constexpr,
    BYTES: tl.constexpr,
):
    """Multiply one input with ROWS rows; sums run along the columns until the end."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    total = tl.zeros([ROWS, BYTES, 8], tl.float32)
    for chunk in range(tl.cdiv(width, BYTES)):
        weights = expand(mask, values, starts, row, chunk, rows, entries, width, BYTES)
        at = chunk * BYTES + tl.arange(0, BYTES)
        column = at[:, None] * 8 + tl.arange(0, 8)[None, :]
        given = tl.load(x + column, mask=column < columns, other=0.0)
        total += weights.to(tl.float32) * given.to(tl.float32)[None, :, :]
    sums = tl.sum(tl.sum(total, axis=2), axis=1)
    if bias is not None:
        sums += tl.load(bias + row, mask=row < rows, other=0.0)
    tl.store(out + row, sums.to(out.dtype.element_ty), mask=row < rows)


@triton.jit
def multiply_many(
    x,
    mask,
    values,
    starts,
    bias,
    out,
    batch,
    rows,
    columns,
    entries,
    width,
    ROWS: tl.constexpr,
    BYTES: tl.constexpr,
    BATCH: tl.constexpr,
):
    """Multiply BATCH inputs with ROWS rows as matrices, a chunk of columns at a time."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    item = (tl.program_id(1) * BATCH + tl.arange(0, BATCH)).to(tl.int64)
    total = tl.zeros([BATCH, ROWS], tl.float32)
    for chunk in range(tl.cdiv(width, BYTES)):
        weights = expand(mask, values, starts, row, chunk, rows, entries, width, BYTES)
        column = chunk * BYTES * 8 + tl.arange(0, BYTES * 8)
        inside = (item < batch)[:, None] & (column < columns)[None, :]
        given = tl.load(x + item[:, None] * columns + column[None, :], mask=inside, other=0.0)
        flat = tl.reshape(weights, [ROWS, BYTES * 8])
        total = tl.dot(given, tl.trans(flat), total, input_precision="ieee")
    if bias is not None:
        total += tl.load(bias + row, mask=row < rows, other=0.0)[None, :]
    stored = (item < batch)[:, None] & (row < rows)[None, :]
    place = out + item[:, None] * rows + row[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=stored)
