"""Rounding of matrices to few bits, in groups of columns that share a scale and maybe a minimum."""

from __future__ import annotations

__all__ = ["GROUP", "quantize"]

import torch
from torch import Tensor

from .. import _run

#: Columns of a group, as cpp/run/engine/model.hpp defines them.
GROUP = 32

#: Weights that are rounded at a time, in float32.
_PORTION = 1 << 20


def quantize(
    weight: Tensor, bits: int, minimums: bool
) -> tuple[Tensor, Tensor, Tensor | None, float]:
    """Round a matrix to nearest in groups of 32 columns, each with the best of several ranges.

    The codes of each range get the scale, and the minimum where there are minimums, that fit them
    best by least squares, and the range of the least squared error is kept. Codes are rounded
    again after scales are.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        Columns a multiple of 32; finite, of any floating dtype.
    bits : {8, 4}
        Per code.
    minimums : bool
        Whether a group's codes count from a minimum of its own; otherwise from zero at 128 or 8.

    Returns
    -------
    codes : Tensor of shape (rows, columns), uint8
    scales : Tensor of shape (rows, columns / 32), float16
    minimums : Tensor of shape (rows, columns / 32), float16, or None
        A weight is about ``(code * scale + minimum) * unit``, or ``(code - 2 ** (bits - 1)) *
        scale * unit`` without.
    unit : float
        A power of two, which keeps both within float16's range.
    """
    rows, columns = weight.shape
    groups = (rows, columns // GROUP)
    codes = torch.empty(rows, columns, dtype=torch.uint8)
    scales = torch.empty(groups, dtype=torch.float16)
    least = torch.empty(groups, dtype=torch.float16) if minimums else None
    unit = _unit(weight)
    some = max(1, _PORTION // max(1, columns))
    for first in range(0, rows, some):
        here = slice(first, first + some)
        _run.quantize(
            weight[here].float().contiguous().numpy(),
            unit,
            bits,
            codes[here].numpy(),
            _halves(scales[here]),
            None if least is None else _halves(least[here]),
        )
    return codes, scales, least, unit


def _halves(numbers: Tensor) -> object:
    return numbers.view(torch.uint16).numpy()


def _unit(weight: Tensor) -> float:
    """Return 1 for weights of usual sizes, so that most matrices can be joined as they are."""
    largest = float(weight.abs().max()) if weight.numel() else 0.0
    if largest == 0 or 2.0**-4 <= largest <= 2.0**10:
        return 1.0
    return max(2.0 ** (int(torch.tensor(largest).frexp().exponent) - 10), 2.0**-100)
