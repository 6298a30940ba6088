"""Linear layers whose weight is stored in a layout and never unpacked."""

from __future__ import annotations

__all__ = ["PackedLinear"]

from typing import Self

from torch import Tensor, nn

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
        return self.layout.matmul(x, self.float_bias())
