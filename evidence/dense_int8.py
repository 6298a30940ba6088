"""The dense int8 product that experiments and benchmarks time."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor


def dense_int8(weight: Tensor, x: Tensor) -> Callable[[], Tensor]:
    """Return oneDNN's product, which rounds `x` to bytes as it comes in, like our layout's."""
    torch.backends.quantized.engine = "onednn"
    scales = weight.abs().amax(1).double().clamp(min=1e-12) / 127
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings():
        # Torch means to give up tensors of this kind, but has no other such product yet.
        warnings.simplefilter("ignore", UserWarning)
        rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(rounded, None)
    return lambda: torch.ops.quantized.linear_dynamic(x, packed, reduce_range=False)
