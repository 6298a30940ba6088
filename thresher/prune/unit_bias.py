"""Biases that make up for inputs which are about to be removed, by their means."""

from __future__ import annotations

__all__ = ["add_biases", "put_into_bias"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..parts.forms import TransposedKernel
from ..parts.layers import Layer


def add_biases(layers: Sequence[Layer]) -> None:
    """Give layers without a bias one of zeros."""
    for layer in layers:
        module: Any = layer.module
        if layer.attribute == "weight" and getattr(module, "bias", 0) is None:
            turned = isinstance(layer.form, TransposedKernel)
            outputs = module.out_channels if turned else module.weight.shape[0]
            module.bias = nn.Parameter(module.weight.new_zeros(outputs))


def put_into_bias(layer: Layer, stay: torch.Tensor, means: torch.Tensor | None) -> None:
    """Add what a layer gave of the means of the inputs that go."""
    bias = getattr(layer.module, "bias", None)
    # Of recurrent layers it is a flag.
    if means is None or not isinstance(bias, torch.Tensor) or stay.dim() > 2:
        return
    matrix = layer.matrix()
    gone = matrix.masked_fill(stay.to(matrix.device), 0) @ means
    if gone.shape == bias.shape:
        bias += gone.to(bias.dtype)
