"""What is measured: matrices, layouts, batch sizes and the ratios to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from thresher.evidence.dense_int8 import dense_int8
from torch import Tensor, nn

from thresher.parts.patterns import Pattern
from thresher.run.layouts.base import Layout
from thresher.run.layouts.registry import named_layout

SHAPES = ((4096, 4096), (11008, 4096))
BATCHES = (1, 16, 128)


@dataclass(frozen=True, eq=False)
class Case:
    """One layout at one density.

    Parameters
    ----------
    layout : str
        Name of a registered layout.
    pattern : str
        As :meth:`Pattern.parse <thresher.core.named.Spelled.parse>` takes it.
    density : float
        Of the pattern.
    dtype : torch.dtype
        Of weights and activations.
    targets : mapping of (rival, batch) to float
        Ratios to reach: time of the rival over time of the layout.
    """

    layout: str
    pattern: str
    density: float
    dtype: torch.dtype = torch.bfloat16
    targets: Mapping[tuple[str, int], float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Layout, density and dtype on one line."""
        kind = str(self.dtype).removeprefix("torch.")
        return f"{self.layout} {self.pattern} {self.density:g} {kind}"

    def weight(self, dense: Tensor) -> Tensor:
        """Return `dense` with only a random support of the pattern kept."""
        pattern = Pattern.parse(self.pattern)
        generator = torch.Generator().manual_seed(1)
        score = torch.rand(dense.shape, generator=generator)
        mask = pattern.mask(score, pattern.count(dense.shape, self.density))
        return (dense * mask).to(self.dtype)

    def pack(self, weight: Tensor) -> Layout:
        """Pack a weight made by :meth:`weight`."""
        return named_layout(self.layout).from_dense(weight)


def _at(rival: str, **ratios: float) -> dict[tuple[str, int], float]:
    """``_at("dense bf16", b1=1.5)`` is a target of 1.5 at batch 1."""
    return {(rival, int(batch[1:])): ratio for batch, ratio in ratios.items()}


BF16, FP32, CSR, INT8 = "dense bf16", "dense fp32", "torch CSR fp32", "dense int8"

CASES = (
    Case("bitmask", "unstructured", 0.5, targets=_at(BF16, b1=1.5, b16=0.95, b128=0.95)),
    Case("bitmask", "unstructured", 0.3, targets=_at(BF16, b1=2.3, b16=0.95, b128=0.95)),
    Case("bitmask", "unstructured", 0.1, targets=_at(BF16, b1=4.0, b16=0.95, b128=0.95)),
    Case("bitmask", "unstructured", 0.5, torch.float32),
    Case("csr", "unstructured", 0.1, targets=_at(BF16, b1=4.0)),
    Case("csr", "unstructured", 0.05, torch.float32, _at(CSR, b1=1.5, b16=1.5, b128=1.5)),
    Case("csr", "unstructured", 0.02, torch.float32, _at(CSR, b1=1.5, b16=1.5, b128=1.5)),
    Case("blocks", "16x32", 0.5, targets=_at(BF16, b16=1.6, b128=1.6)),
    Case("blocks", "16x32", 0.25, targets=_at(BF16, b16=3.0, b128=3.0)),
    Case("blocks", "16x32", 0.1, targets=_at(BF16, b16=6.0, b128=6.0)),
    Case("n:m", "2:4", 0.5, targets=_at(BF16, b1=1.6)),
    Case("n:m", "2:8", 0.25),
    Case("n:m", "1:4", 0.25),
    Case("n:m:g", "2:4/outputs", 0.5, torch.float32),
    Case("n:m:g", "2:8/outputs", 0.25, torch.float32),
    Case("n:m:g", "1:8/outputs", 0.125, torch.float32),
    Case("fan-in", "fan-in", 0.1, torch.float32, _at(FP32, b1=3.0) | _at(CSR, b1=1.5)),
    Case("group-sparse-4bit", "1x16", 0.5, targets=_at(BF16, b1=3.5)),
    Case("int8-4x1", "4x1", 0.3, torch.float32, _at(INT8, b1=1.5, b16=1.5)),
    Case("int8-4x1", "4x1", 0.1, torch.float32, _at(INT8, b1=3.0, b16=3.0)),
    Case("bank-balanced", "2:64", 1 / 32),
)


def rivals(dense: Tensor, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Dense products in both dtypes, and in int8."""
    linear = nn.functional.linear
    half, half_x = dense.bfloat16(), x.bfloat16()
    return {
        BF16: lambda: linear(half_x, half),
        FP32: lambda: linear(x, dense),
        INT8: dense_int8(dense, x),
    }


def torch_csr(weight: Tensor, x: Tensor) -> Callable[[], Tensor]:
    """Torch's CSR product (MKL), written the way round that is fast."""
    sparse, columns = weight.float().to_sparse_csr(), x.t()
    return lambda: sparse @ columns


def torch_bsr(weight: Tensor, x: Tensor) -> Callable[[], Tensor]:
    """Torch's BSR product (MKL), float32, square blocks of 16."""
    sparse, columns = weight.float().to_sparse_bsr((16, 16)), x.t()
    return lambda: sparse @ columns
