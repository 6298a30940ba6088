"""How weights are rounded, and laid out for the engine's kernels."""

from __future__ import annotations

__all__ = ["pack_panels", "quantize"]

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.errors import NumericalError, OptionError
from .. import _run

#: Rows of a panel and columns of a group, as cpp/run/engine/model.hpp defines them.
PANEL_ROWS, GROUP = 16, 32

#: Rows that are rounded at a time, few enough to stay in cache.
_ROWS = 128

#: What the entry of a group with the largest magnitude may be divided by: with either sign the
#: four bits reach to -8 on one side, and smaller scales cut off one entry to serve the others.
_DIVISORS = {8: (127.0,), 4: (-8.0, -8.6, -9.3, -7.4, 7.0, 7.6, 8.3)}
_LIMITS = {8: (-127, 127), 4: (-8, 7)}


def quantize(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, float]:
    """Round a matrix to nearest in groups of 32 columns, with the best of a few scales.

    Each candidate's codes get the scale that fits them best by least squares, and the candidate
    of the least squared error is kept. Scales are rounded before codes are.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        Columns a multiple of 32; finite.
    bits : {8, 4}
        Per code.

    Returns
    -------
    codes : Tensor of shape (rows, columns / 32, 32), int8
        From -127 to 127, or from -8 to 7.
    scales : Tensor of shape (rows, columns / 32), float16
        A weight is about ``code * scale * unit``.
    unit : float
        A power of two, which keeps scales of any matrix within float16's range.
    """
    largest = float(weight.abs().max()) if weight.numel() else 0.0
    unit = 2.0 ** int(torch.tensor(largest).frexp().exponent) / 2**bits if largest > 0 else 1.0
    unit = max(unit, 2.0**-100)
    parts = [_quantize_rows(rows.float() / unit, bits) for rows in weight.split(_ROWS)]
    return torch.cat([codes for codes, _ in parts]), torch.cat([s for _, s in parts]), unit


def _quantize_rows(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    groups = weight.unflatten(1, (-1, GROUP))
    extreme = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    best_error = torch.full_like(extreme, torch.inf)
    best_scale = torch.zeros_like(extreme)
    best_codes = torch.zeros_like(groups)
    for divisor in _DIVISORS[bits]:
        scale = _rounded(extreme / divisor)
        codes = _codes(groups, scale, bits)
        power = (codes * codes).sum(2, keepdim=True)
        fitted = _rounded((groups * codes).sum(2, keepdim=True) / power.clamp_min(1))
        for candidate in (scale, fitted):
            codes = _codes(groups, candidate, bits)
            error = (groups - codes * candidate).square().sum(2, keepdim=True)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_scale = torch.where(better, candidate, best_scale)
            best_codes = torch.where(better, codes, best_codes)
    return best_codes.to(torch.int8), best_scale.squeeze(2).half()


def _rounded(scale: Tensor) -> Tensor:
    return scale.half().float()


def _codes(groups: Tensor, scale: Tensor, bits: int) -> Tensor:
    inverse = torch.where(scale != 0, 1 / scale, 0)
    return (groups * inverse).round_().clamp_(*_LIMITS[bits])


def pack_panels(
    name: str, weight: Tensor, bits: int | None, bias: Tensor | None = None
) -> _run.Panels:
    """Return a matrix in the engine's panels.

    Parameters
    ----------
    name : str
        What errors call it.
    weight : Tensor of shape (rows, columns)
        Of any floating dtype.
    bits : {8, 4} or None
        Per code; None for bfloat16, which wider weights are rounded to.
    bias : Tensor of shape (rows,), optional
        Kept in float32.

    Raises
    ------
    NumericalError
        If a weight is not finite.
    OptionError
        If there is no format of so many bits.
    """
    if bits not in (None, 8, 4):
        raise OptionError(
            f"the engine has no weights of {bits} bits; use 8, 4 or None for bfloat16"
        )
    weight = weight.detach()
    if not bool(weight.isfinite().all()):
        raise NumericalError(f"{name} holds weights that are not finite")
    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -columns % GROUP, 0, -rows % PANEL_ROWS))
    scales: NDArray[np.uint16] | None = None
    unit = 1.0
    if bits is None:
        codes = _lines(padded.bfloat16().view(torch.int16), 2).view(torch.uint8)
        form = "bf16"
    else:
        quantized, row_scales, unit = quantize(padded, bits)
        panels = row_scales.view(torch.int16).unflatten(0, (-1, PANEL_ROWS))
        scales = panels.transpose(1, 2).contiguous().numpy().view(np.uint16)
        codes = _bytes(quantized, bits)
        form = f"int{bits}"
    held: NDArray[np.float32] | None = None
    if bias is not None:
        padded_bias = torch.nn.functional.pad(bias.detach().float(), (0, -rows % PANEL_ROWS))
        held = padded_bias.clone().numpy()
    return _run.Panels(form, codes.numpy(), scales, unit, held, rows, columns)


def _lines(values: Tensor, width: int) -> Tensor:
    """Return rows as panels of lines: `width` columns of 16 rows after one another."""
    panels = values.reshape(-1, PANEL_ROWS, values.shape[1] // width, width)
    return panels.transpose(1, 2).contiguous()


def _bytes(codes: Tensor, bits: int) -> Tensor:
    if bits == 8:
        return _lines((codes.flatten(1).short() + 128).to(torch.uint8), 4)
    eights = (codes + 8).to(torch.uint8).unflatten(2, (-1, 2, 4))
    halves = eights[..., 0, :] | eights[..., 1, :] << 4
    return _lines(halves.flatten(1), 4)
