"""Groups of 16 weights of a row, dropped whole or kept in 4 bits."""

from __future__ import annotations

__all__ = ["GroupSparse4Bit"]

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from thresher.core.card import Card, Catalogued

from .. import _run
from .buffers import FLOATS, Buffer, integers
from .kernel import KernelLayout, refuse_outside, value_dtypes

GROUP = 16
_LEVELS = 15


def _grouped(weight: Tensor) -> Tensor:
    """Return a matrix as (rows, groups, 16), padded with zeros."""
    padded = nn.functional.pad(weight, (0, -weight.shape[1] % GROUP))
    return padded.reshape(weight.shape[0], padded.shape[1] // GROUP, GROUP)


def _unpacked(codes: Tensor) -> Tensor:
    """Return codes as one byte each, (groups, 16)."""
    return torch.stack([codes & 15, codes >> 4], dim=-1).reshape(-1, GROUP)


class GroupSparse4Bit(KernelLayout, Catalogued):
    """Group sparsity and 4-bit weights together, for decoding at batch 1.

    A weight is ``scale * (code - zero)`` with a code and a zero point from 0 to 15 and a scale
    per group of 16 consecutive inputs, rounded to nearest; zero is always a level, so that
    zeros inside a kept group stay zeros. At half of the groups a matrix takes 0.41 bytes per
    weight, a fifth of bfloat16.

    Buffers: ``row_starts``, int64 (rows + 1,); ``places``, uint16 (groups,), which group of
    columns; ``codes``, uint8 (groups, 8), the first column of a pair in the lower half of the
    byte; ``scales``, (groups,), of the dtype of inputs and outputs; ``zeros``, uint8 (groups,).

    Notes
    -----
    Only the format and the kernel of the source are here; threads share rows out as they become
    free, which serves the purpose of its task-centric split on a processor of few cores. Its
    reconstruction of the weights belongs to pruning.
    """

    name = "group-sparse-4bit"
    exact = False
    card = Card(
        name="gqsa",
        title="GQSA: Group Quantization and Sparsity for Accelerating Large Language Model "
        "Inference",
        authors="Chao Zeng et al.",
        year=2024,
        arxiv="2412.17560",
        summary="Layout and kernel for weights pruned in groups of 16 and kept in 4 bits",
    )

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse matrices with more than 65,536 groups of columns."""
        return "too many columns" if weight.shape[1] > GROUP << 16 else None

    @classmethod
    def example(cls, weight: Tensor) -> Tensor | None:
        """Keep whole groups: those whose first weight survives."""
        mask = (_grouped(weight)[:, :, 0] != 0).repeat_interleave(GROUP, dim=1)
        filled = torch.where(weight == 0, torch.ones_like(weight), weight)
        return filled * mask[:, : weight.shape[1]]

    @classmethod
    def from_dense(cls, weight: Tensor) -> Self:
        """Drop the groups that are zero and round the others to 4 bits."""
        groups = _grouped(weight.detach())
        kept = (groups != 0).any(-1)
        starts = torch.zeros(weight.shape[0] + 1, dtype=torch.int64)
        torch.cumsum(kept.sum(1), 0, out=starts[1:])
        chosen = groups[kept].float()
        low = chosen.clamp(max=0).amin(-1) if len(chosen) else chosen.new_zeros(0)
        high = chosen.clamp(min=0).amax(-1) if len(chosen) else chosen.new_zeros(0)
        scales = ((high - low) / _LEVELS).to(weight.dtype)
        steps = scales.float().clamp(min=torch.finfo(torch.float32).tiny)
        zeros = (-low / steps).round().clamp(0, _LEVELS)
        codes = (chosen / steps[:, None] + zeros[:, None]).round().clamp(0, _LEVELS)
        codes = codes.to(torch.uint8)
        tensors = {
            "row_starts": starts,
            "places": kept.nonzero()[:, 1].to(torch.uint16),
            "codes": codes[:, 0::2] | codes[:, 1::2] << 4,
            "scales": scales,
            "zeros": zeros.to(torch.uint8),
        }
        return cls(tensors, (weight.shape[0], weight.shape[1]), {})

    @classmethod
    def expected(cls, shape: tuple[int, int], settings: Mapping[str, int]) -> dict[str, Buffer]:
        """Return what row starts, places, codes, scales and zero points must look like."""
        integers(settings)
        return {
            "row_starts": Buffer((torch.int64,), (shape[0] + 1,)),
            "places": Buffer((torch.uint16,), ("groups",)),
            "codes": Buffer((torch.uint8,), ("groups", GROUP // 2)),
            "scales": Buffer(FLOATS, ("groups",)),
            "zeros": Buffer((torch.uint8,), ("groups",)),
        }

    def bind(self) -> Any:
        """Bind row starts, places, codes, scales and zero points."""
        scales = self.take("scales", *value_dtypes)
        self.dtype = scales.dtype
        starts = self.take("row_starts", torch.int64)
        places = self.take("places", torch.uint16)
        codes = self.take("codes", torch.uint8)
        zeros = self.take("zeros", torch.uint8)
        matrix = _run.Quantized(starts, places, codes, scales, zeros, *self.shape)
        whole, beside = divmod(self.shape[1], GROUP)
        if beside:
            last = places.int() == whole
            refuse_outside((_unpacked(codes[last]) - zeros[last][:, None])[:, beside:], "codes")
        return matrix

    def to_dense(self) -> Tensor:
        """Return the dense matrix, rounded to its dtype."""
        rows, columns = self.shape
        levels = _unpacked(self._tensors["codes"]).float()
        levels = levels - self._tensors["zeros"].float()[:, None]
        values = levels * self._tensors["scales"].float()[:, None]
        groups = -(-columns // GROUP)
        dense = torch.zeros(rows, groups, GROUP, dtype=self.dtype, device=self.device)
        counts = self._tensors["row_starts"].diff()
        at = torch.arange(rows, device=self.device).repeat_interleave(counts)
        dense[at, self._tensors["places"].long()] = values.to(self.dtype)
        return dense.flatten(1)[:, :columns].contiguous()
