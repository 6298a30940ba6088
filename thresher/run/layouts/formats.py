"""Packed formats: the bytes of a sparse weight, on disk and in memory.

The byte layouts are specified in ``docs/format.md``.
"""

from __future__ import annotations

__all__ = [
    "FORMAT_VERSION",
    "READABLE_VERSIONS",
    "bitmask_buffers",
    "bitmask_parts",
    "bitmask_support",
    "check_shape_outline",
    "group_of",
    "kept_per_group",
    "most_in_groups",
    "pack",
    "pack_positions",
    "packed_bytes",
    "position_bits",
    "position_buffers",
    "position_parts",
    "position_support",
    "shape_of",
    "suffixes",
    "unpack",
    "unpack_positions",
]

import math

import numpy as np
import torch

from ...core.errors import CheckpointError, LayerError
from .buffers import FLOATS, Buffer, check_buffers, check_sizes, outlines

#: Raised when a reader of an earlier version could misread a folder, or not find its files.
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)

_VALUES, _SHAPE, _BITMASK, _INDICES = "_values", "_shape", "_bitmask", "_indices"

#: Endings that a packed weight's tensors add to its name, unless the configuration names a layout.
suffixes = (_VALUES, _SHAPE, _BITMASK, _INDICES)

#: Wider groups would need positions of more bits than a bitmask, at any useful density.
_LARGEST_GROUP = 64
#: Of groups that are read: a position then takes a byte at most.
_LARGEST_READ = 256
_MOST_DIMENSIONS = 8


def pack(weight: torch.Tensor, mask: torch.Tensor, m: int | None = None) -> dict[str, torch.Tensor]:
    """Pack a weight on its support.

    Parameters
    ----------
    weight : Tensor of shape (rows, ...)
        Any floating dtype; dimensions after the first are flattened to columns.
    mask : Tensor of bool, same shape
        The support.
    m : int, optional
        When every `m` consecutive columns keep equally many, positions are stored instead of a
        bitmask, if they take no more room. See :func:`group_of`.

    Returns
    -------
    dict of str to Tensor
        By suffix: ``_values`` and ``_shape``, with ``_bitmask`` or with ``_indices``.
    """
    rows = weight.shape[0]
    flat, kept = weight.reshape(rows, -1), mask.reshape(rows, -1)
    n = _kept_in_every_group(kept, m) if m else 0
    parts = position_parts(flat, kept, n, m) if n and m else bitmask_parts(flat, kept)
    shape = torch.tensor(weight.shape, dtype=torch.int64)
    return {_SHAPE: shape, **{f"_{name}": tensor for name, tensor in parts.items()}}


def group_of(mask: torch.Tensor) -> int | None:
    """Return M if a support keeps N of every M columns, and positions would take little room.

    Parameters
    ----------
    mask : Tensor of bool, shape (rows, ...)
        As for :func:`pack`.
    """
    kept = mask.reshape(mask.shape[0], -1)
    rows, columns = kept.shape
    per_row = int(kept[0].sum()) if rows else 0
    if per_row == 0:
        return None
    step = columns // math.gcd(per_row, columns)
    for m in range(step, min(columns // 2, _LARGEST_GROUP) + 1, step):
        if _kept_in_every_group(kept[:1], m) and _kept_in_every_group(kept, m):
            return m
    return None


def _kept_in_every_group(kept: torch.Tensor, m: int) -> int:
    """Return N if N of every `m` columns are kept and positions take no more than bits, else 0."""
    if kept.numel() == 0 or kept.shape[1] % m:
        return 0
    counts = kept.reshape(kept.shape[0], -1, m).sum(-1)
    n = int(counts.flatten()[0])
    fits = n * position_bits(m) <= m and bool((counts == n).all())
    return n if fits else 0


def bitmask_parts(matrix: torch.Tensor, kept: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return ``bitmask`` and ``values`` of a matrix on a support, both (rows, columns)."""
    packed = np.packbits(kept.cpu().numpy(), axis=1, bitorder="little")
    return {"bitmask": torch.from_numpy(packed), "values": matrix[kept]}


def position_parts(
    matrix: torch.Tensor, kept: torch.Tensor, n: int, m: int
) -> dict[str, torch.Tensor]:
    """Return ``indices`` and ``values`` of a matrix on an N:M support, both (rows, columns).

    Groups with fewer than `n` survivors, never more, take some of their zeros with them.
    """
    rows, columns = matrix.shape
    groups = kept.reshape(rows, columns // m, m)
    if bool((groups.sum(-1) < n).any()):
        # A stable sort of "is removed" puts the survivors first, each kind in column order.
        first = (~groups).to(torch.uint8).sort(dim=-1, stable=True).indices[..., :n]
        groups = torch.zeros_like(groups).scatter_(-1, first, True)
    values = matrix[groups.reshape(rows, columns)].reshape(rows, columns // m * n)
    positions = groups.nonzero()[:, 2].reshape(rows, columns // m * n)
    return {"indices": pack_positions(positions, m), "values": values}


def most_in_groups(kept: torch.Tensor, m: int) -> int:
    """Return the largest number of survivors in a group of `m` columns, `m` dividing those."""
    if kept.numel() == 0:
        return 0
    return int(kept.reshape(kept.shape[0], -1, m).sum(-1).max())


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
        If the tensors do not fit one another; nothing is read out of range, and nothing is
        allocated before shapes and types are known to fit.
    """
    missing = {_VALUES, _SHAPE} - tensors.keys()
    if missing or not tensors.keys() & {_BITMASK, _INDICES}:
        raise CheckpointError(f"packed weight {name!r} is incomplete: it has {sorted(tensors)}")
    shape = shape_of(name, tensors[_SHAPE])
    rows, columns = shape[0], math.prod(shape[1:])
    parts = {suffix[1:]: tensor for suffix, tensor in tensors.items() if suffix != _SHAPE}
    values = tensors[_VALUES]
    n = 0
    if _BITMASK not in tensors:
        n = kept_per_group(tuple(values.shape), rows, columns, group, name)
    try:
        expected = bitmask_buffers(rows, columns)
        if n:
            expected = position_buffers(rows, columns, n, group or 1)
        check_buffers(outlines(parts), expected)
    except LayerError as error:
        raise CheckpointError(
            f"packed weight {name!r} cannot be read: {error}; the file is corrupted, fetch or "
            "write it again"
        ) from error
    if n:
        mask = position_support(tensors[_INDICES], rows, columns, n, group or 1, name)
    else:
        mask = bitmask_support(tensors[_BITMASK], rows, columns, name)
    if int(mask.sum()) != values.numel():
        raise CheckpointError(
            f"packed weight {name!r} holds {values.numel()} values for a support of "
            f"{int(mask.sum())}; the file is corrupted, fetch or write it again"
        )
    weight = values.new_zeros(rows, columns)
    weight[mask] = values.flatten()
    return weight.reshape(shape), mask.reshape(shape)


def check_shape_outline(name: str, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise CheckpointError unless the tensor of a shape looks as it must."""
    whole = dtype == torch.int64 and len(sizes) == 1
    if not whole or not 2 <= sizes[0] <= _MOST_DIMENSIONS:
        raise CheckpointError(
            f"tensor '{name}_shape' is no shape of a weight, which is int64 and of 2 to "
            f"{_MOST_DIMENSIONS} dimensions: it is {dtype} of shape {sizes}; the file is "
            "corrupted, fetch or write it again"
        )


def shape_of(name: str, tensor: torch.Tensor | None) -> tuple[int, ...]:
    """Return the shape of a dense weight from the tensor that holds it.

    Raises
    ------
    CheckpointError
        If it is none: of another type, of one dimension, negative, or too large for a matrix.
    """
    if tensor is None:
        raise CheckpointError(f"packed weight {name!r} is incomplete: '{name}_shape' is missing")
    check_shape_outline(name, tuple(tensor.shape), tensor.dtype)
    shape = tuple(tensor.tolist())
    try:
        check_sizes(shape)
    except LayerError as error:
        raise CheckpointError(
            f"tensor '{name}_shape' is no shape of a weight: {list(shape)}; {error}; the file is "
            "corrupted, fetch or write it again"
        ) from error
    return shape


def packed_bytes(tensors: dict[str, torch.Tensor]) -> int:
    """Return the bytes that tensors take."""
    return sum(t.numel() * t.element_size() for t in tensors.values())


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


def bitmask_buffers(rows: int, columns: int) -> dict[str, Buffer]:
    """Return what the mask and the values of a matrix must look like."""
    return {
        "bitmask": Buffer((torch.uint8,), (rows, -(-columns // 8))),
        "values": Buffer(FLOATS, ("survivors",)),
    }


def position_buffers(rows: int, columns: int, n: int, m: int) -> dict[str, Buffer]:
    """Return what the indices and the values of a matrix must look like; LayerError if none can."""
    if not 1 <= n <= m <= _LARGEST_READ or columns % m:
        raise LayerError(
            f"{columns} columns cannot be kept {n}:{m}: N must be 1 to M, and M at most "
            f"{_LARGEST_READ} and a divisor of the columns"
        )
    kept = columns // m * n
    return {
        "indices": Buffer((torch.uint8,), (rows, -(-kept * position_bits(m) // 8))),
        "values": Buffer(FLOATS, (rows, kept)),
    }


def bitmask_support(bitmask: torch.Tensor, rows: int, columns: int, name: str) -> torch.Tensor:
    """Return the support that the bitmask of weight `name` says.

    Raises
    ------
    CheckpointError
        If a bit past the last column is set.
    """
    bits = np.unpackbits(bitmask.cpu().numpy(), axis=1, bitorder="little")
    if bits[:, columns:].any():
        raise CheckpointError(
            f"bitmask of {name!r} marks columns past the last one; the file is corrupted, fetch "
            "or write it again"
        )
    return torch.from_numpy(bits[:, :columns]).bool().to(bitmask.device)


def kept_per_group(
    values: tuple[int, ...], rows: int, columns: int, m: int | None, name: str
) -> int:
    """Return N of an N:M pattern from the shape of its values.

    Raises
    ------
    CheckpointError
        If there is no such N, which is one or more.
    """
    fits = m and columns and columns % m == 0 and len(values) == 2 and values[1]
    if not m or not fits or values[1] % (columns // m):
        raise CheckpointError(
            f"packed weight {name!r} has values of shape {values}, which is no N:{m} pattern "
            f"of {rows} rows and {columns} columns; the file is corrupted, fetch or write it again"
        )
    return values[1] // (columns // m)


def unpack_positions(
    indices: torch.Tensor, rows: int, columns: int, n: int, m: int, name: str
) -> torch.Tensor:
    """Undo :func:`pack_positions`: int64, (rows, groups, n), below `m`.

    Raises
    ------
    CheckpointError
        If the bytes are no increasing positions below `m`, `n` in each group, and zeros.
    """
    width, groups = position_bits(m), columns // m
    bits = np.unpackbits(indices.cpu().numpy(), axis=1, bitorder="little")
    used = groups * n * width
    if bits[:, used:].any():
        raise CheckpointError(
            f"indices of {name!r} go on after the last one; the file is corrupted, fetch or write "
            "it again"
        )
    bits = bits[:, :used].reshape(rows, groups, n, width)
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
