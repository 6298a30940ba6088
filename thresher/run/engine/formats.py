"""The formats that the engine holds matrices in, and how they are laid out for its kernels."""

from __future__ import annotations

__all__ = [
    "CODED",
    "FLOATS",
    "Matrix",
    "PanelData",
    "encode",
    "form_of",
    "four_bits",
    "joined",
    "lay_out",
]

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core.errors import NumericalError, OptionError
from ...parts.gptq import Codes
from .. import _run
from .quantize import GROUP, quantize

#: Rows of a panel, and of one of channels, as cpp/run/engine/model.hpp defines them.
PANEL_ROWS, TALL_ROWS = 16, 128
#: Panels of channels that lie together.
_STRIP = 4

#: Formats of floating-point numbers, by their dtype.
FLOATS = {"bf16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
#: Formats of codes, by how many bits a code has.
CODED = {"int8": 8, "int4": 4}


@dataclass(frozen=True)
class Matrix:
    """A matrix in one of the formats, row by row.

    Parameters
    ----------
    form : str
        Of :data:`FLOATS` or :data:`CODED`.
    codes : Tensor of shape (rows, columns)
        Of the format's dtype, or uint8. Columns are padded to whole groups of 32.
    columns : int
        Without those.
    scales, minimums : Tensor of shape (rows, columns / 32), float16, optional
        See :func:`~thresher.run.engine.quantize.quantize`.
    unit : float, default 1
        What scales and minimums are multiples of.
    """

    form: str
    codes: Tensor
    columns: int
    scales: Tensor | None = None
    minimums: Tensor | None = None
    unit: float = 1.0

    def by_rows(self, change: Callable[[Tensor], Tensor]) -> Matrix:
        """Return what `change` makes of the rows of everything there is for a row."""
        scales, minimums = (x if x is None else change(x) for x in (self.scales, self.minimums))
        return replace(self, codes=change(self.codes), scales=scales, minimums=minimums)

    def dense(self) -> Tensor:
        """Return the matrix in float32."""
        if self.scales is None:
            return self.codes[:, : self.columns].float()
        zero = 0 if self.minimums is not None else 2 ** (CODED[self.form] - 1)
        groups = self.codes.unflatten(1, (-1, GROUP)).float() - zero
        groups *= self.scales.float().unsqueeze(2) * self.unit
        if self.minimums is not None:
            groups += self.minimums.float().unsqueeze(2) * self.unit
        return groups.flatten(1)[:, : self.columns]

    def promoted(self, bits: int, minimums: bool) -> Matrix:
        """Return the same numbers with more bits, or with minimums, without rounding."""
        assert self.scales is not None
        zero = 2 ** (CODED[self.form] - 1)
        if minimums and self.minimums is None:
            return replace(self, minimums=self.scales * -zero).promoted(bits, minimums)
        codes = self.codes if minimums else self.codes + (2 ** (bits - 1) - zero)
        return replace(self, form=f"int{bits}", codes=codes)


def form_of(bits: int | None, dtype: torch.dtype) -> str:
    """Return the format for matrices of a dtype with so many bits.

    Parameters
    ----------
    bits : {8, 4} or None
        None for 16 bits: float16 for what is in float16, and otherwise bfloat16, which wider
        weights are rounded to.
    dtype : torch.dtype

    Raises
    ------
    OptionError
        If there is no format of so many bits.
    """
    if bits is None:
        return "float16" if dtype == torch.float16 else "bf16"
    if bits not in CODED.values():
        raise OptionError(
            f"the engine has no weights of {bits} bits; use 8, 4 or None for 16-bit floats"
        )
    return f"int{bits}"


def encode(name: str, weight: Tensor, form: str) -> Matrix:
    """Return a matrix in a format, rounded to nearest.

    Parameters
    ----------
    name : str
        What errors call it.
    weight : Tensor of shape (rows, columns)
        Of any floating dtype.
    form : str
        Four bits get minimums, eight do not.

    Raises
    ------
    NumericalError
        If a weight is not finite.
    """
    weight = weight.detach()
    if not bool(weight.isfinite().all()):
        raise NumericalError(f"{name} holds weights that are not finite")
    columns = weight.shape[1]
    padded = nn.functional.pad(weight, (0, -columns % GROUP))
    if form in FLOATS:
        return Matrix(form, padded.to(FLOATS[form]), columns)
    codes, scales, minimums, unit = quantize(padded, CODED[form], minimums=form == "int4")
    return Matrix(form, codes, columns, scales, minimums, unit)


def four_bits(codes: Codes, unit: float) -> Matrix:
    """Return a matrix that was rounded to :class:`~thresher.run.engine.quantize.FourBits`."""
    scales, minimums = (
        torch.cat([getattr(levels, name) for levels in codes.groups], 1).div(unit).half()
        for name in ("scale", "minimum")
    )
    columns = codes.codes.shape[1]
    padded = nn.functional.pad(codes.codes, (0, -columns % GROUP))
    return Matrix("int4", padded, columns, scales, minimums, unit)


def joined(name: str, parts: list[Matrix]) -> Matrix:
    """Return matrices of as many columns one below the other, without rounding.

    Different formats become the narrowest with codes that holds all of them, or float32.
    """
    if len({(part.form, part.minimums is None, part.unit) for part in parts}) > 1:
        parts = _alike(name, parts)

    def together(held: list[Tensor | None]) -> Tensor | None:
        return None if held[0] is None else torch.cat([x for x in held if x is not None])

    return replace(
        parts[0],
        codes=torch.cat([part.codes for part in parts]),
        scales=together([part.scales for part in parts]),
        minimums=together([part.minimums for part in parts]),
    )


def _alike(name: str, parts: list[Matrix]) -> list[Matrix]:
    if all(part.form in CODED for part in parts) and len({part.unit for part in parts}) == 1:
        bits = max(CODED[part.form] for part in parts)
        minimums = any(part.minimums is not None for part in parts)
        return [part.promoted(bits, minimums) for part in parts]
    return [encode(name, part.dense(), "float32") for part in parts]


@dataclass(frozen=True)
class PanelData:
    """A matrix in panels of 16 rows, as the kernels read it; see cpp/run/engine/model.hpp."""

    form: str
    codes: NDArray[np.uint8]
    scales: NDArray[np.uint16] | None
    minimums: NDArray[np.uint16] | None
    unit: float
    bias: NDArray[np.float32] | None
    rows: int
    columns: int
    thresholds: NDArray[np.float32] | None = None

    def build(self) -> _run.Panels:
        """Return the compiled view of it, which keeps the arrays alive."""
        return _run.Panels(**vars(self))


def lay_out(
    matrix: Matrix, bias: Tensor | None = None, thresholds: Tensor | None = None
) -> PanelData:
    """Return a matrix in panels.

    Parameters
    ----------
    matrix : Matrix
    bias : Tensor of shape (rows,), optional
        Kept in float32.
    thresholds : Tensor of shape (columns,), float32, optional
        Below which inputs are dropped. Four bits are then laid out by channels, so that those of
        dropped inputs are not read.
    """
    rows = len(matrix.codes)
    channels = thresholds is not None and matrix.form == "int4"
    height = TALL_ROWS if channels else PANEL_ROWS
    padding = -rows % height
    padded = matrix.by_rows(lambda x: nn.functional.pad(x, (0, 0, 0, padding)))
    held = None if bias is None else nn.functional.pad(bias.detach().float(), (0, padding))
    return PanelData(
        form="channels" if channels else matrix.form,
        codes=(_channels if channels else _lines)(padded).numpy().reshape(-1),
        scales=_by_group(padded.scales, height),
        minimums=_by_group(padded.minimums, height),
        unit=matrix.unit,
        bias=None if held is None else held.clone().numpy(),
        rows=rows,
        columns=matrix.columns,
        thresholds=None if thresholds is None else thresholds.clone().numpy(),
    )


def _by_group(numbers: Tensor | None, height: int) -> NDArray[np.uint16] | None:
    if numbers is None:
        return None
    panels = numbers.view(torch.uint16).unflatten(0, (-1, height))
    found: NDArray[np.uint16] = panels.transpose(1, 2).contiguous().numpy()
    return found.reshape(-1)


def _channels(matrix: Matrix) -> Tensor:
    """Return rows as panels of 128, four together column by column, as bytes.

    A byte has a row and the one that is 64 on. Within a line a row's place is that from which
    interleaving four lines puts rows in order.
    """
    halves = matrix.codes.unflatten(0, (-1, 2, TALL_ROWS // 2))
    lines = (halves[:, 0] | halves[:, 1] << 4).transpose(1, 2)
    placed = lines.unflatten(2, (4, 4, 4)).transpose(2, 3).flatten(2)
    return torch.cat([strip.transpose(0, 1).flatten() for strip in placed.split(_STRIP)])


def _lines(matrix: Matrix) -> Tensor:
    """Return rows as panels of lines: some columns of 16 rows after one another, as bytes."""
    values = matrix.codes
    width = {"bf16": 2, "int8": 4, "int4": 4}.get(matrix.form, 1)
    if matrix.form == "int4":
        eights = values.unflatten(1, (-1, 2, 4))
        values = (eights[:, :, 0] | eights[:, :, 1] << 4).flatten(1)
    panels = values.reshape(-1, PANEL_ROWS, values.shape[1] // width, width)
    return panels.transpose(1, 2).contiguous().view(torch.uint8)
