"""Rounding of matrices to few bits, in groups of columns that share a scale and maybe a minimum."""

from __future__ import annotations

__all__ = ["GROUP", "FourBits", "quantize", "unit_of"]

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...parts.column_walk import Levels
from .. import _run

#: Columns of a group, as cpp/run/engine/model.hpp defines them.
GROUP = 32

#: The largest code of four bits, and significant bits of which that many are still in float16.
_MOST, _EXACT = 15, 7

#: Weights that are rounded at a time, in float32.
_PORTION = 1 << 20


def quantize(
    weight: Tensor, bits: int, minimums: bool, unit: float | None = None
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
    unit : float, optional
        A power of two.  [default: :func:`unit_of` the matrix]

    Returns
    -------
    codes : Tensor of shape (rows, columns), uint8
    scales : Tensor of shape (rows, columns / 32), float16
    minimums : Tensor of shape (rows, columns / 32), float16, or None
        A weight is about ``(code * scale + minimum) * unit``, or ``(code - 2 ** (bits - 1)) *
        scale * unit`` without.
    unit : float
    """
    rows, columns = weight.shape
    groups = (rows, columns // GROUP)
    codes = torch.empty(rows, columns, dtype=torch.uint8)
    scales = torch.empty(groups, dtype=torch.float16)
    least = torch.empty(groups, dtype=torch.float16) if minimums else None
    unit = unit_of([weight]) if unit is None else unit
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


def unit_of(weights: Iterable[Tensor]) -> float:
    """Return what scales and minimums of matrices are to be multiples of, within float16's range.

    A power of two: 1 for weights of usual sizes, so that most matrices can be joined as they are.
    """
    largest = max((float(weight.abs().max()) for weight in weights if weight.numel()), default=0.0)
    if largest == 0 or 2.0**-4 <= largest <= 2.0**10:
        return 1.0
    return max(2.0 ** (int(torch.tensor(largest).frexp().exponent) - 10), 2.0**-100)


@dataclass(frozen=True)
class FourBits:
    """Four bits with a minimum in groups of 32 columns, as a grid for weights one after another.

    Where zero has to be one of the values, scales keep 7 significant bits, so that a multiple of
    one is a minimum in float16.

    Parameters
    ----------
    unit : float
        See :func:`quantize`.
    """

    unit: float
    width = GROUP

    def fit(self, part: Tensor, zero: bool) -> Levels:
        """Return the best of several ranges; see :class:`~thresher.parts.gptq.Grid`."""
        padded = nn.functional.pad(part, (0, GROUP - part.shape[1])).cpu()
        _, scales, least, _ = quantize(padded, 4, minimums=True, unit=self.unit)
        assert least is not None
        scale, minimum = scales.float(), least.float()
        if zero:
            size = scale.frexp().exponent - _EXACT
            scale = (scale.ldexp(-size)).round().ldexp(size)
            steps = torch.where(scale == 0, 0, -minimum / scale).round().clamp(0, _MOST)
            minimum = -steps * scale
        scale, minimum = (x.to(part.device) * self.unit for x in (scale, minimum))
        return Levels(scale, minimum, _MOST)
