"""Small unsigned numbers packed at a fixed number of bits each, lowest bit first."""

from __future__ import annotations

__all__ = ["pack_bits", "unpack_bits"]

import numpy as np
import torch
from torch import Tensor


def pack_bits(numbers: Tensor, width: int) -> Tensor:
    """Pack rows of numbers below ``2 ** width`` into bytes.

    Parameters
    ----------
    numbers : Tensor of uint8
        Shape (rows, count).
    width : int
        Bits per number, from 1 to 8.

    Returns
    -------
    Tensor of uint8
        Shape (rows, ceil(count * width / 8)): each row is padded to whole bytes.
    """
    rows, count = numbers.shape
    bits = (numbers.numpy()[..., None] >> np.arange(width, dtype=np.uint8)) & 1
    packed = np.packbits(bits.reshape(rows, count * width), axis=1, bitorder="little")
    return torch.from_numpy(packed)


def unpack_bits(packed: Tensor, width: int, count: int) -> Tensor:
    """Undo :func:`pack_bits`.

    Parameters
    ----------
    packed : Tensor of uint8
        Shape (rows, bytes).
    width : int
        Bits per number, from 1 to 8.
    count : int
        Numbers per row.

    Returns
    -------
    Tensor of uint8
        Shape (rows, count).
    """
    bits = np.unpackbits(packed.numpy(), axis=1, count=count * width, bitorder="little")
    weights = (1 << np.arange(width)).astype(np.uint8)
    return torch.from_numpy(bits.reshape(packed.shape[0], count, width) @ weights)
