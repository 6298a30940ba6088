"""Linear layers whose weight is stored in a layout and never unpacked."""

from __future__ import annotations

__all__ = ["PackedLinear"]

from typing import Self

import torch
from torch import Tensor, nn

from ...core.errors import LayerError
from ..layouts.base import Layout
from .layer import PackedLayer


class PackedLinear(PackedLayer):
    """A stand-in for ``torch.nn.Linear`` that multiplies a packed weight.

    Parameters
    ----------
    layout : Layout
        The packed weight, (out_features, in_features).
    bias : Tensor, optional
        Shape (out_features,).
    """

    @classmethod
    def from_linear(cls, linear: nn.Linear, layout: type[Layout]) -> Self:
        """Pack the weight of a dense layer."""
        weight = linear.weight.detach()
        return cls(layout.from_dense(weight.cpu()).to(weight.device), linear.bias)

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return self.layout.shape[0]

    @property
    def in_features(self) -> int:
        """Columns of the weight."""
        return self.layout.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ W.T + bias``; `x` has the dtype of the weight."""
        if self.outer is None:
            return self.layout.matmul(x, self.float_bias())
        if x.dtype != self.outer:
            raise LayerError(f"a layer of {self.outer} was given an input of {x.dtype}")
        if x.dtype == torch.float64:
            return nn.functional.linear(x, self.dense_weight(), self._parameters["bias"])
        return self.layout.matmul(x.float(), self.float_bias()).to(x.dtype)
