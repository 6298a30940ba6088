"""Bank-balanced matrices: as many survivors in every bank of a row, at high sparsity."""

from __future__ import annotations

__all__ = ["BankBalanced"]

from typing import Any

import torch
from torch import Tensor

from thresher.core.card import Card, Catalogued
from thresher.core.errors import LayerError

from ...parts.patterns import NM
from .. import _run
from . import formats
from .indexed import too_wide
from .masked import NofM

BANK = 64


class BankBalanced(NofM, Catalogued):
    """At most ``n`` survivors in every bank of 64 consecutive inputs of a row.

    Hardware with a multiplier and a memory for each bank works through a row in ``n`` steps,
    none of them idle: 2 of 64 is 32 times fewer than dense. Prune with the pattern ``"2:64"`` and
    the like. Buffers and settings are those of
    :class:`~thresher.run.layouts.masked.NofM`, 6 bits a position. Processors multiply it as
    :class:`~thresher.run.layouts.indexed.ConstantFanIn`, with positions that are widened to the
    columns' 16 bits when they are bound: at these densities that is faster than masks.

    Notes
    -----
    The source does not publish its format; balance over banks, which keeps parallel multipliers
    busy, is taken from the literature on such hardware.
    """

    name = "bank-balanced"
    patterns = tuple((n, BANK) for n in (2, 4, 8, 16))
    card = Card(
        name="s4",
        title="S4: a High-sparsity, High-performance AI Accelerator",
        authors="Ian En-Hsu Yen, Zhibin Xiao, Dongkuan Xu",
        year=2022,
        arxiv="2207.08006",
        summary="As many survivors in every bank of 64 weights, and what hardware with banks gains",
    )

    @classmethod
    def example(cls, weight: Tensor) -> Tensor | None:
        """Keep the 8 largest weights of every bank."""
        whole = weight[:, : weight.shape[1] // BANK * BANK]
        return whole * NM(8, BANK).mask(whole.abs(), whole.numel() // BANK * 8)

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse matrices too wide for 16 bits, or that :class:`NofM` would refuse."""
        return too_wide(weight) or super().refusal(weight)

    def bind(self) -> Any:
        """Check indices and values, and bind them with the columns that the indices stand for."""
        if self.shape[1] > 1 << 16:
            raise LayerError("tensor 'indices' of a bank-balanced layer names over 65,536 columns")
        super().bind()
        n, m = self.setting("n"), self.setting("m")
        positions = formats.unpack_positions(self._tensors["indices"], *self.shape, n, m, self.name)
        columns = positions + torch.arange(positions.shape[1])[:, None] * m
        values = self._tensors["values"]
        flat = columns.reshape(values.shape).to(torch.uint16)
        return _run.FanIn(flat, values, *self.shape, values.shape[1])
