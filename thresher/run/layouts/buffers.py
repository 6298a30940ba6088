"""What the buffers of a packed matrix must look like, checked before anything is allocated.

A file is not trusted: it says how large a matrix is, and which tensors hold it. All of that is
compared with what the layout says it must be, in Python's integers, which do not overflow, and on
the header of the file alone.
"""

from __future__ import annotations

__all__ = [
    "FLOATS",
    "MOST_ENTRIES",
    "MOST_UNHELD",
    "Buffer",
    "Outline",
    "check_buffers",
    "check_sizes",
    "integers",
    "outlines",
]

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ...core.errors import LayerError

#: Types that a weight may be stored in; kernels take the first two.
FLOATS = (torch.bfloat16, torch.float32, torch.float16, torch.float64)
#: Of a matrix: what a kernel computes from its sizes then stays below 2**63. The kernels' own
#: bound is the same, see ``cpp/run/bind.hpp``.
MOST_ENTRIES = 1 << 53
#: The other sizes of a weight without any entry: no buffer need be as long as they say.
MOST_UNHELD = 1 << 24
_MOST_SETTING = (1 << 31) - 1


class Outline(NamedTuple):
    """Shape and type of a tensor that was not read yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Buffer:
    """What one buffer must look like.

    Parameters
    ----------
    dtypes : tuple of torch.dtype
        Those that are allowed.
    sizes : tuple of int or str
        Of its dimensions. A name stands for a size that the buffers themselves decide, such as
        the number of survivors; all that are called the same must be equal.
    """

    dtypes: tuple[torch.dtype, ...]
    sizes: tuple[int | str, ...]


def outlines(tensors: Mapping[str, torch.Tensor]) -> dict[str, Outline]:
    """Return the outlines of tensors that are at hand."""
    return {name: Outline(tuple(t.shape), t.dtype) for name, t in tensors.items()}


def check_sizes(shape: tuple[int, ...]) -> None:
    """Raise unless a weight may have this shape.

    Raises
    ------
    LayerError
        If a size is negative, or they are too large to be computed with.
    """
    # One for none: strides, and the loops over rows that have no columns, go by this product.
    product = math.prod(max(size, 1) for size in shape)
    if min(shape) < 0 or product > (MOST_ENTRIES if min(shape) else MOST_UNHELD):
        raise LayerError(
            f"a weight of {' x '.join(map(str, shape))} is not possible: sizes must not be "
            f"negative, nor make more than {MOST_ENTRIES} entries, or {MOST_UNHELD} where one is 0"
        )


def integers(settings: Mapping[str, int], *names: str) -> tuple[int, ...]:
    """Return settings by name.

    Raises
    ------
    LayerError
        If one is missing, is no integer or out of range, or there are others.
    """
    for name in names:
        if name not in settings:
            raise LayerError(f"setting {name!r} of a packed layer is missing")
    if surplus := sorted(settings.keys() - set(names)):
        raise LayerError(f"setting {surplus[0]!r} of a packed layer is not known to its layout")
    for name in names:
        value = settings[name]
        if type(value) is not int or not 0 <= value <= _MOST_SETTING:
            raise LayerError(f"setting {name}={value!r} of a packed layer is no usable number")
    return tuple(settings[name] for name in names)


def check_buffers(found: Mapping[str, Outline], expected: Mapping[str, Buffer]) -> None:
    """Raise unless buffers are all there, of the expected types and shapes, and no others.

    Raises
    ------
    LayerError
        The message names the buffer.
    """
    decided: dict[str, int] = {}
    source: dict[str, str] = {}
    for name, buffer in expected.items():
        if name not in found:
            raise LayerError(f"tensor {name!r} of a packed layer is missing")
        shape, dtype = found[name]
        if dtype not in buffer.dtypes:
            allowed = " or ".join(str(each) for each in buffer.dtypes)
            raise LayerError(f"tensor {name!r} of a packed layer is {dtype}, expected {allowed}")
        sizes = tuple(decided.get(s, s) if isinstance(s, str) else s for s in buffer.sizes)
        pairs = list(zip(shape, sizes, strict=False))
        if len(shape) != len(sizes) or any(a != b for a, b in pairs if isinstance(b, int)):
            others = sorted({repr(source[size]) for size in buffer.sizes if size in source})
            raise LayerError(
                f"tensor {name!r} of a packed layer has shape {shape}, expected "
                f"({', '.join(str(size) for size in sizes)})"
                + (f" as that of {' and '.join(others)} says" if others else "")
            )
        new = {size: actual for actual, size in pairs if isinstance(size, str)}
        decided |= new
        source |= dict.fromkeys(new, name)
    if surplus := sorted(found.keys() - expected.keys()):
        raise LayerError(f"tensor {surplus[0]!r} of a packed layer is not known to its layout")
