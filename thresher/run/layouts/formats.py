"""Packed formats: the bytes of a sparse weight, on disk and in memory.

The byte layouts are specified in ``docs/format.md``.
"""

from __future__ import annotations

__all__ = [
    "FORMAT_VERSION",
    "bitmask_support",
    "kept_per_group",
    "pack",
    "pack_bitmask",
    "pack_positions",
    "packed_bytes",
    "position_bits",
    "position_support",
    "suffixes",
    "unpack",
    "unpack_positions",
]

import math

import numpy as np
import torch

from ...core.errors import CheckpointError
from ...parts.patterns import NM

#: Raised when a reader of an earlier version could misread a file.
FORMAT_VERSION = 1

_VALUES, _SHAPE, _BITMASK, _INDICES = "_values", "_shape", "_bitmask", "_indices"

#: Endings that a packed weight's tensors add to its name, unless the configuration names a layout.
suffixes = (_VALUES, _SHAPE, _BITMASK, _INDICES)


def pack(
    weight: torch.Tensor, mask: torch.Tensor, group: NM | None = None
) -> dict[str, torch.Tensor]:
    """Pack a weight on its support.

    Parameters
    ----------
    weight : Tensor of shape (rows, ...)
        Any floating dtype; dimensions after the first are flattened to columns.
    mask : Tensor of bool, same shape
        The support.
    group : NM, optional
        When every M consecutive columns keep exactly N, positions are stored instead of a
        bitmask, if they take no more room.

    Returns
    -------
    dict of str to Tensor
        By suffix: ``_values`` and ``_shape``, with ``_bitmask`` or with ``_indices``.
    """
    rows = weight.shape[0]
    shape = torch.tensor(weight.shape, dtype=torch.int64)
    flat, kept = weight.reshape(rows, -1), mask.reshape(rows, -1)
    if group is not None and group.n * position_bits(group.m) <= group.m:
        chosen = kept.reshape(rows, -1, group.m)
        if bool((chosen.sum(-1) == group.n).all()):
            positions = chosen.nonzero()[:, 2].reshape(rows, -1)
            values = flat[kept].reshape(rows, -1)
            return {_VALUES: values, _SHAPE: shape, _INDICES: pack_positions(positions, group.m)}
    return {_VALUES: flat[kept], _SHAPE: shape, _BITMASK: pack_bitmask(kept)}


def unpack(
    tensors: dict[str, torch.Tensor], name: str, group: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the dense weight and its support.

    Parameters
    ----------
    tensors : dict of str to Tensor
        What :func:`pack` returned.
    name : str
        Name of the weight, for messages.
    group : int, optional
        M, when positions are stored.

    Returns
    -------
    weight : Tensor
        Zero off the support.
    mask : Tensor of bool

    Raises
    ------
    CheckpointError
        If the tensors do not fit one another; nothing is read out of range.
    """
    missing = {_VALUES, _SHAPE} - tensors.keys()
    if missing or not tensors.keys() & {_BITMASK, _INDICES}:
        raise CheckpointError(f"packed weight {name!r} is incomplete: it has {sorted(tensors)}")
    values, shape = tensors[_VALUES], tensors[_SHAPE].flatten().tolist()
    if tensors[_SHAPE].dtype != torch.int64 or len(shape) < 2 or min(shape) < 0:
        raise CheckpointError(f"packed weight {name!r} has shape {shape}; the file is corrupted")
    rows, columns = shape[0], math.prod(shape[1:])
    if _BITMASK in tensors:
        mask = bitmask_support(tensors[_BITMASK], rows, columns, name)
    else:
        n = kept_per_group(values, rows, columns, group, name)
        mask = position_support(tensors[_INDICES], rows, columns, n, group or 1, name)
    if int(mask.sum()) != values.numel():
        raise CheckpointError(
            f"packed weight {name!r} holds {values.numel()} values for a support of "
            f"{int(mask.sum())}; the file is corrupted, fetch or write it again"
        )
    weight = values.new_zeros(rows, columns)
    weight[mask] = values.flatten()
    return weight.reshape(tuple(shape)), mask.reshape(tuple(shape))


def packed_bytes(tensors: dict[str, torch.Tensor]) -> int:
    """Return the bytes that tensors take."""
    return sum(t.numel() * t.element_size() for t in tensors.values())


def pack_bitmask(kept: torch.Tensor) -> torch.Tensor:
    """Pack a support of shape (rows, columns) at one bit each, every row padded to whole bytes."""
    return torch.from_numpy(np.packbits(kept.cpu().numpy(), axis=1, bitorder="little"))


def position_bits(m: int) -> int:
    """Return the bits that a position in a group of `m` takes."""
    return max(1, (m - 1).bit_length())


def pack_positions(positions: torch.Tensor, m: int) -> torch.Tensor:
    """Pack positions in groups of `m`, shape (rows, count), every row padded to whole bytes."""
    width = position_bits(m)
    numbers = positions.cpu().numpy().astype(np.uint8 if width <= 8 else np.int64)
    bits = numbers[..., None] >> np.arange(width, dtype=numbers.dtype) & 1
    rows = bits.reshape(len(numbers), numbers.shape[1] * width).astype(np.uint8)
    return torch.from_numpy(np.packbits(rows, axis=1, bitorder="little"))


def bitmask_support(bitmask: torch.Tensor, rows: int, columns: int, name: str) -> torch.Tensor:
    """Undo :func:`pack_bitmask` for the weight `name`, CheckpointError when it does not fit."""
    expected = (rows, -(-columns // 8))
    if tuple(bitmask.shape) != expected or bitmask.dtype != torch.uint8:
        raise CheckpointError(
            f"bitmask of {name!r} is {bitmask.dtype} of shape {tuple(bitmask.shape)}, expected "
            f"uint8 of shape {expected}; the file is corrupted or belongs to another model"
        )
    bits = np.unpackbits(bitmask.cpu().numpy(), axis=1, count=columns, bitorder="little")
    return torch.from_numpy(bits).bool().to(bitmask.device)


def kept_per_group(values: torch.Tensor, rows: int, columns: int, m: int | None, name: str) -> int:
    """Return N of an N:M pattern from its values, CheckpointError when there is no such N."""
    fits = m and columns and columns % m == 0 and values.dim() == 2
    if not m or not fits or values.shape[1] % (columns // m):
        raise CheckpointError(
            f"packed weight {name!r} has {tuple(values.shape)} values, which is no N:{m} pattern "
            f"of {rows} rows and {columns} columns; the file is corrupted"
        )
    return int(values.shape[1] // (columns // m))


def unpack_positions(
    indices: torch.Tensor, rows: int, columns: int, n: int, m: int, name: str
) -> torch.Tensor:
    """Undo :func:`pack_positions`: int64, (rows, groups, n), below `m`.

    Raises
    ------
    CheckpointError
        If the bytes are no increasing positions below `m`, `n` in each group.
    """
    width, groups = position_bits(m), columns // m
    expected = (rows, -(-groups * n * width // 8))
    if tuple(indices.shape) != expected or indices.dtype != torch.uint8:
        raise CheckpointError(
            f"indices of {name!r} are {indices.dtype} of shape {tuple(indices.shape)}, expected "
            f"uint8 of shape {expected}; the file is corrupted"
        )
    bits = np.unpackbits(
        indices.cpu().numpy(), axis=1, count=groups * n * width, bitorder="little"
    ).reshape(rows, groups, n, width)
    positions = torch.from_numpy(bits @ (1 << np.arange(width, dtype=np.int64)))
    if bool((positions >= m).any()) or bool((positions.diff(dim=-1) <= 0).any()):
        raise CheckpointError(
            f"indices of {name!r} are not increasing positions below {m}; the file is corrupted"
        )
    return positions


def position_support(
    indices: torch.Tensor, rows: int, columns: int, n: int, m: int, name: str
) -> torch.Tensor:
    """Return packed positions as a support of (rows, columns); see :func:`unpack_positions`."""
    positions = unpack_positions(indices, rows, columns, n, m, name)
    support = torch.zeros(rows, columns // m, m, dtype=torch.bool)
    support.scatter_(-1, positions, True)
    return support.reshape(rows, columns).to(indices.device)
