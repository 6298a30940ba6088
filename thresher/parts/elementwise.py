"""Activation functions, of every value by itself, by name."""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "Activation", "name_of"]

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from ..core.errors import unknown

Activation = Callable[[torch.Tensor], torch.Tensor]


def gelu_by_tanh(x: torch.Tensor) -> torch.Tensor:
    """Return GELU as GPT-2 approximates it."""
    return functional.gelu(x, approximate="tanh")


def gelu_by_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Return GELU as CLIP approximates it."""
    return x * torch.sigmoid(1.702 * x)


def squared_relu(x: torch.Tensor) -> torch.Tensor:
    """Return the square of the positive part."""
    return functional.relu(x).square()


#: By the names that files and messages have for them.
ACTIVATIONS: Mapping[str, Activation] = {
    "relu": functional.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu-tanh": gelu_by_tanh,
    "gelu-sigmoid": gelu_by_sigmoid,
    "squared-relu": squared_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def name_of(activation: Activation) -> str:
    """Return the name of a function of :data:`ACTIVATIONS`.

    Raises
    ------
    OptionError
        If it is none of them.
    """
    for name, each in ACTIVATIONS.items():
        if each is activation:
            return name
    raise unknown("activation", repr(activation), ACTIVATIONS)
