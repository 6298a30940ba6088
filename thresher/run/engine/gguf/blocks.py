"""Matrices as GGUF stores them: rows of blocks of 32, each with its scale and codes."""

from __future__ import annotations

__all__ = ["BLOCKS", "FLOATS", "Q4_1", "Blocks", "pack", "unpack"]

from dataclasses import dataclass

import torch
from torch import Tensor

from ..formats import Matrix
from ..quantize import GROUP

#: Types of tensors that are floating-point numbers, by their number.
FLOATS = {0: "float32", 1: "float16", 30: "bf16"}


@dataclass(frozen=True)
class Blocks:
    """A type of tensors in blocks of 32.

    Parameters
    ----------
    form : str
        The format that has the same numbers.
    minimums : bool
        Whether blocks have minimums.
    size : int
        Bytes of a block.
    """

    form: str
    minimums: bool
    size: int


Q4_0, Q4_1, Q8_0 = 2, 3, 8
#: Types of blocks, by their number.
BLOCKS = {
    Q4_0: Blocks("int4", False, 18),
    Q4_1: Blocks("int4", True, 20),
    Q8_0: Blocks("int8", False, 34),
}


def unpack(kind: Blocks, blocks: Tensor) -> Matrix:
    """Return the matrix of blocks of shape (rows, columns / 32, bytes), uint8."""
    scales = _halves(blocks, 0)
    minimums = _halves(blocks, 2) if kind.minimums else None
    codes = blocks[..., 4 if kind.minimums else 2 :]
    if kind.form == "int8":
        codes = codes ^ 128
    else:
        codes = torch.cat([codes & 15, codes >> 4], 2)
    return Matrix(kind.form, codes.flatten(1), blocks.shape[1] * GROUP, scales, minimums)


def pack(kind: Blocks, matrix: Matrix) -> Tensor:
    """Return a matrix as bytes of shape (rows, bytes of a row): what :func:`unpack` undoes.

    Parameters
    ----------
    kind : Blocks
        Of the matrix's format.
    matrix : Matrix
        Of whole groups, its unit 1.
    """
    assert matrix.scales is not None
    assert matrix.unit == 1
    codes = matrix.codes.unflatten(1, (-1, GROUP))
    if kind.form == "int8":
        codes = codes ^ 128
    else:
        low, high = codes.chunk(2, 2)
        codes = low | high << 4
    numbers = (matrix.scales, matrix.minimums)
    held = [
        x.contiguous().view(torch.uint8).unflatten(1, (-1, 2)) for x in numbers if x is not None
    ]
    return torch.cat([*held, codes], 2).flatten(1)


def _halves(blocks: Tensor, place: int) -> Tensor:
    return blocks[..., place : place + 2].contiguous().view(torch.float16).squeeze(2)
