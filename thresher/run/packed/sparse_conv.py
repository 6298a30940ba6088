"""Training convolutions whose only weights are the survivors of a support."""

from __future__ import annotations

__all__ = ["ConvolutionProducts", "SparseConv2d"]

from typing import Any, Self

import torch
from torch import Tensor, nn

from ...core.errors import LayerError, OptionError
from ..layouts.convolution import Geometry, as_matrix, as_weight
from ..layouts.support import Rearranged, Support
from .sparse_layer import Products, SparseLayer


class ConvolutionProducts(Products):
    """Products with images, (images, channels, height, width).

    The gradient of the input is a convolution too: of the output's gradient, without stride,
    with a matrix that has the same survivors. Its rows are pairs of an input channel and a phase,
    the remainder of a position by the stride, and its columns the taps in reverse.

    Parameters
    ----------
    support : Support
        Of the matrix (out channels, taps * in channels / groups).
    geometry : Geometry
        Of the convolution.
    """

    def __init__(self, support: Support, geometry: Geometry) -> None:
        super().__init__(support)
        self.geometry = geometry
        taps = geometry.kernel[0] * geometry.kernel[1]
        outputs = support.shape[0] // geometry.groups
        inputs = support.shape[1] // taps
        tap, channel = support.columns // inputs, support.columns % inputs
        row_phase, row_tap, row_axis = _reversed_axis(geometry, 0, tap // geometry.kernel[1])
        column_phase, column_tap, column_axis = _reversed_axis(
            geometry, 1, tap % geometry.kernel[1]
        )
        phase = row_phase * geometry.stride[1] + column_phase
        phases = geometry.stride[0] * geometry.stride[1]
        kernel = (row_axis[0], column_axis[0])
        group = support.rows // outputs
        self._reversed = Rearranged(
            (group * inputs + channel) * phases + phase,
            (row_tap * kernel[1] + column_tap) * outputs + support.rows % outputs,
            (geometry.groups * inputs * phases, kernel[0] * kernel[1] * outputs),
        )
        self._kernel, self._dilation = kernel, (row_axis[1], column_axis[1])

    def forward(self, matrix: Any, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution of `x`."""
        return _convolve(matrix, x, self.support.shape[0], self.geometry, bias)

    def input_gradient(self, values: Tensor, grad: Tensor, shape: torch.Size) -> Tensor:
        """Return the gradient of images of `shape`."""
        images, channels, height, width = shape
        stride, padding = self.geometry.stride, self.geometry.padding
        reach = [d * (k - 1) for k, d in zip(self._kernel, self._dilation, strict=True)]
        # Without stride, the padding is cut off beforehand where that is possible.
        cut = stride == (1, 1) and max(padding[:2]) <= reach[0] and max(padding[2:]) <= reach[1]
        less = padding if cut else (0, 0, 0, 0)
        around = (reach[0] - less[0], reach[0] - less[1], reach[1] - less[2], reach[1] - less[3])
        reversed_geometry = Geometry(
            self._kernel, (1, 1), around, self._dilation, self.geometry.groups
        )
        rows = channels * stride[0] * stride[1]
        full = _convolve(self._reversed.bind(values), grad, rows, reversed_geometry, None)
        if cut:
            return full
        planes = full.reshape(images, channels, *stride, *full.shape[2:])
        planes = planes.permute(0, 1, 4, 2, 5, 3)
        tall, wide = planes.shape[2] * stride[0], planes.shape[4] * stride[1]
        top, left = padding[0], padding[2]
        ends = (-left, width + left - wide, -top, height + top - tall)
        return nn.functional.pad(planes.reshape(images, channels, tall, wide), ends)

    def accumulate(self, matrix: Any, x: Tensor, grad: Tensor, gradient: Tensor) -> None:
        """Write the gradient of every survivor."""
        matrix.convolution_gradient(
            self.geometry.bind(_sizes(x)),
            x.data_ptr(),
            grad.data_ptr(),
            gradient.data_ptr(),
            torch.get_num_threads(),
        )

    def bias_gradient(self, grad: Tensor) -> Tensor:
        """Sum over images and positions."""
        return grad.sum((0, 2, 3))


def _reversed_axis(
    geometry: Geometry, axis: int, tap: Tensor
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Return phase and reversed tap of each survivor, and the reversed kernel's size and dilation.

    Tap k reads the padded row ``stride * i + dilation * k`` for output row i. That is position
    ``i + shift`` of the rows whose remainder by the stride is the tap's phase.
    """
    stride, dilation = geometry.stride[axis], geometry.dilation[axis]
    reach = dilation * (geometry.kernel[axis] - 1) // stride
    step = dilation if stride == 1 else 1
    place = tap * dilation
    return place % stride, (reach - place // stride) // step, (reach // step + 1, step)


def _sizes(x: Tensor) -> tuple[int, int, int, int]:
    return x.shape[0], x.shape[1], x.shape[2], x.shape[3]


def _convolve(matrix: Any, x: Tensor, rows: int, geometry: Geometry, bias: Tensor | None) -> Tensor:
    size = geometry.output_size(x.shape[2], x.shape[3])
    out = torch.empty(x.shape[0], rows, *size)
    matrix.convolve(
        geometry.bind(_sizes(x)),
        x.data_ptr(),
        out.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        -torch.inf,
        torch.inf,
        torch.get_num_threads(),
    )
    return out


class SparseConv2d(SparseLayer):
    """A convolution whose only weights are the survivors of its support.

    The forward product and both backward products visit survivors only, as those of
    :class:`thresher.run.packed.sparse_linear.SparseLinear` do, and the support moves in the same
    way (:meth:`move`), without a dense copy of the weight.

    Parameters
    ----------
    in_channels, out_channels : int
        As for ``torch.nn.Conv2d``.
    kernel_size : int or (int, int)
        Rows and columns of the kernel.
    stride, padding, dilation : int or (int, int), defaults 1, 0, 1
        As for ``torch.nn.Conv2d``; padding is with zeros.
    groups : int, default 1
        As for ``torch.nn.Conv2d``.
    density : float, default 0.1
        Fraction of weights that exist. The support is drawn at random, the values from the
        uniform distribution of ``nn.Conv2d`` scaled to the mean number of inputs per output.
    bias : bool, default True
        Whether to add a learned bias.
    generator : torch.Generator, optional
        For the support and the values.

    Attributes
    ----------
    values : nn.Parameter
        Shape (survivors,), float32, in row-major order of the support.
    support : Support
        Where they are in the matrix (out channels, kernel rows * kernel columns * in channels /
        groups), channels varying fastest.

    Raises
    ------
    OptionError
        If `density` is not in (0, 1], or `groups` does not divide the channels.
    LayerError
        If the matrix, or that of the input's gradient, has more than 65,536 rows or columns.

    References
    ----------
    Nikdan et al., SparseProp: Efficient Sparse Backpropagation for Faster Training of Neural
    Networks (2023).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        density: float = 0.1,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise OptionError(
                f"groups={groups} must divide both {in_channels} input and {out_channels} output "
                "channels"
            )
        around = _pair(padding)
        self.geometry = Geometry(
            _pair(kernel_size),
            _pair(stride),
            (around[0], around[0], around[1], around[1]),
            _pair(dilation),
            groups,
        )
        shape = (out_channels, self.geometry.columns(in_channels))
        self._draw(shape, density, bias, generator)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d) -> Self:
        """Take the survivors of a dense layer, zero where no connection is.

        Raises
        ------
        LayerError
            If it pads with anything but zeros.
        """
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.geometry = Geometry.of(conv)
        layer._take(as_matrix(conv.weight.detach()), conv.bias)
        return layer

    def make_products(self, support: Support) -> ConvolutionProducts:
        """Return products with images."""
        return ConvolutionProducts(support, self.geometry)

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.support.shape[0]

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        kernel = self.geometry.kernel
        return self.support.shape[1] // (kernel[0] * kernel[1]) * self.geometry.groups

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x`, (images, in_channels, height, width), float32."""
        if x.dim() != 4 or x.shape[1] != self.in_channels or x.dtype != torch.float32:
            raise LayerError(
                f"a sparse convolution of {self.in_channels} float32 channels was given {x.dtype} "
                f"of shape {tuple(x.shape)}; expected (images, channels, height, width)"
            )
        return self.multiply(x.contiguous())

    def to_dense(self) -> Tensor:
        """Return the weight as ``nn.Conv2d`` has it."""
        return as_weight(self.to_matrix(), self.geometry.kernel)

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        return (
            f"{self.in_channels} -> {self.out_channels}, {self.geometry}, "
            f"density={self.density:.3g}"
        )


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
