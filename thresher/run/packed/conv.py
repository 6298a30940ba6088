"""A convolution whose weight is stored in a layout and never unpacked."""

from __future__ import annotations

__all__ = ["PackedConv2d"]

import math
from typing import Self

import torch
from torch import Tensor, nn

from ...core.card import Card, Catalogued
from ...core.errors import LayerError
from ..layouts.base import Layout
from ..layouts.convolution import Geometry, as_matrix, as_weight
from ..layouts.convolving import ConvolvingLayout
from .layer import PackedLayer


class PackedConv2d(PackedLayer, Catalogued):
    """A stand-in for ``torch.nn.Conv2d`` that convolves with a packed weight.

    Images stay channel by channel, as ``torch.nn.Conv2d`` takes them; a strip of positions is
    kept in registers while the survivors of an output channel go by, and nothing is unfolded.
    Bias and a clamp are applied before the strip is written.

    Parameters
    ----------
    layout : ConvolvingLayout
        The packed weight, a matrix as :func:`thresher.run.layouts.convolution.as_matrix` makes it.
    geometry : Geometry
        Kernel size, stride, padding, dilation and groups.
    bias : Tensor, optional
        Shape (out_channels,).
    low, high : float
        Bounds of the output: ``low=0`` for a ReLU that follows, ``low=0, high=6`` for a ReLU6.

    Notes
    -----
    The source computes 1x1 convolutions with a sparse kernel in this layout and leaves the
    others dense; here kernels of any size have one.
    """

    card = Card(
        name="fast-sparse-convnets",
        title="Fast Sparse ConvNets",
        authors="Erich Elsen et al.",
        year=2019,
        arxiv="1911.09723",
        summary="Sparse convolution channel by channel, a strip of positions in registers",
    )
    layout: ConvolvingLayout

    def __init__(
        self,
        layout: ConvolvingLayout,
        geometry: Geometry,
        bias: Tensor | None = None,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> None:
        super().__init__(layout, bias)
        self.geometry = geometry
        self.low, self.high = low, high

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, layout: type[Layout]) -> Self:
        """Pack the weight of a dense layer.

        Raises
        ------
        LayerError
            If the layout has no kernel for convolutions, or for this one.
        """
        geometry = Geometry.of(conv)
        if not issubclass(layout, ConvolvingLayout):
            raise LayerError(f"layout {layout.name!r} multiplies matrices and cannot convolve")
        if geometry.groups > 1 and not layout.takes_groups:
            raise LayerError(f"layout {layout.name!r} cannot convolve in {geometry.groups} groups")
        weight = conv.weight.detach()
        packed = layout.from_dense(as_matrix(weight.cpu()).contiguous()).to(weight.device)
        return cls(packed, geometry, conv.bias)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the dense weight: out channels, in channels / groups, rows, columns."""
        channels = self.in_channels // self.geometry.groups
        return (self.out_channels, channels, *self.geometry.kernel)

    def dense_weight(self) -> Tensor:
        """Return the weight as ``torch.nn.Conv2d`` has it."""
        return as_weight(super().dense_weight(), self.geometry.kernel)

    @property
    def out_channels(self) -> int:
        """Rows of the weight."""
        return self.layout.shape[0]

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        kernel = self.geometry.kernel
        return self.layout.shape[1] // (kernel[0] * kernel[1]) * self.geometry.groups

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of images of shape (images, channels, height, width)."""
        bias = self.float_bias()
        if self.outer is None:
            return self.layout.convolve(x, self.geometry, bias, self.low, self.high)
        if x.dtype != self.outer:
            raise LayerError(f"a layer of {self.outer} was given images of {x.dtype}")
        if x.dtype == torch.float64:
            return self.layout.convolve_dense(x, self.geometry, self.bias).clamp(
                self.low, self.high
            )
        found = self.layout.convolve(x.float(), self.geometry, bias, self.low, self.high)
        return found.to(x.dtype)

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        bounds = "" if self.low == -math.inf else f", clamp=({self.low:g}, {self.high:g})"
        return f"{super().extra_repr()}, {self.geometry}{bounds}"
