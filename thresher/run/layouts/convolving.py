"""Layouts whose kernels multiply images as well as rows."""

from __future__ import annotations

__all__ = ["ConvolvingLayout"]

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from thresher.core.errors import LayerError

from .convolution import Geometry, as_weight
from .handles import held, in_graph
from .kernel import KernelLayout, readable_bias


class ConvolvingLayout(KernelLayout):
    """A layout of the matrix of a convolution, with a kernel for images.

    Rows are output channels, columns as
    :func:`thresher.run.layouts.convolution.as_matrix` orders them.
    """

    takes_groups: ClassVar[bool] = True
    """Whether the kernel convolves in groups."""

    _last: tuple[torch.Size, Geometry, Any, tuple[int, ...]] | None = None

    def convolve(
        self,
        x: Tensor,
        geometry: Geometry,
        bias: Tensor | None = None,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> Tensor:
        """Return the convolution of images with the matrix, in [low, high], with gradients to them.

        Parameters
        ----------
        x : Tensor
            Shape (images, channels, height, width), of the layout's dtype.
        geometry : Geometry
            Of the convolution.
        bias : Tensor, optional
            Shape (rows,), float32.
        low, high : float
            Bounds of the output: ``low=0`` is a ReLU, ``low=0, high=6`` a ReLU6.

        Returns
        -------
        Tensor
            Shape (images, rows, out height, out width), of the layout's dtype.

        Raises
        ------
        LayerError
            If `x` has another dtype, not the channels that the matrix is for, is on another
            device, or is smaller than the kernel.
        """
        if x.dtype != self.dtype and torch.is_autocast_enabled(x.device.type):
            x = x.to(self.dtype)
        if x.dtype != self.dtype:
            raise LayerError(
                f"layout {self.name!r} holds {self.dtype} weights and was given images of "
                f"{x.dtype}; convert one of them, e.g. x.to({self.dtype})"
            )
        if x.device != self.device:
            raise self.elsewhere(x)
        if in_graph():
            return convolve(x, bias, self.handle, geometry.numbers).clamp(low, high)
        if torch.is_grad_enabled() and x.requires_grad:
            return _Convolve.apply(x, self, geometry, bias).clamp(low, high)
        return self.convolve_images(x, geometry, bias, low, high)

    def convolve_images(
        self,
        x: Tensor,
        geometry: Geometry,
        bias: Tensor | None = None,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> Tensor:
        """Return the convolution of images that were checked, without gradients."""
        x = x.contiguous()
        try:
            if self.device.type != "cpu":
                return self.convolve_dense(x, geometry, bias).clamp(low, high)
            bias = readable_bias(bias, self.shape[0])
            bound, shape = self._bind_images(x.shape, geometry)
            out = torch.empty(shape, dtype=self.dtype)
            self._matrix.convolve(
                bound,
                x.data_ptr(),
                out.data_ptr(),
                0 if bias is None else bias.data_ptr(),
                low,
                high,
                torch.get_num_threads(),
            )
        except ValueError as error:
            if isinstance(error, LayerError):
                raise
            raise LayerError(f"{self.name} convolution of {tuple(x.shape)}: {error}") from error
        return out

    def convolve_transposed(self, grad: Tensor, geometry: Geometry, shape: Sequence[int]) -> Tensor:
        """Return the gradient of images of `shape`, given that of the convolution."""
        weight = as_weight(self.to_dense(), geometry.kernel)
        top, bottom, left, right = geometry.padding
        images, channels, height, width = shape
        padded = (images, channels, height + top + bottom, width + left + right)
        x_grad = conv2d_input(
            padded, weight, grad, geometry.stride, 0, geometry.dilation, geometry.groups
        )
        return x_grad[:, :, top : top + height, left : left + width].contiguous()

    def convolve_dense(self, x: Tensor, geometry: Geometry, bias: Any) -> Tensor:
        """Convolve with the dense weight, for devices and dtypes without a kernel."""
        self._bind_images(x.shape, geometry)  # raises when they do not fit
        top, bottom, left, right = geometry.padding
        return nn.functional.conv2d(
            nn.functional.pad(x, (left, right, top, bottom)),
            as_weight(self.to_dense(), geometry.kernel).to(x.dtype),
            None if bias is None else bias.to(x.dtype),
            geometry.stride,
            0,
            geometry.dilation,
            geometry.groups,
        )

    def _bind_images(self, shape: torch.Size, geometry: Geometry) -> tuple[Any, tuple[int, ...]]:
        """Return what the kernel takes and the shape of its output.

        Those of the last call are kept: a network has images of the same size again and again,
        and working them out takes as long as a small convolution.
        """
        last = self._last
        if last is not None and last[0] == shape and last[1] is geometry:
            return last[2], last[3]
        if len(shape) != 4 or geometry.columns(shape[1]) != self.shape[1]:
            raise LayerError(
                f"layout {self.name!r} of {self.shape[0]} x {self.shape[1]} weights with kernel "
                f"{geometry.kernel} and {geometry.groups} groups was given images of shape "
                f"{tuple(shape)}; expected (images, channels, height, width)"
            )
        images, channels, height, width = shape
        bound = geometry.bind((images, channels, height, width))
        out = (images, self.shape[0], *geometry.output_size(height, width))
        self._last = (shape, geometry, bound, out)
        return bound, out


class _Convolve(torch.autograd.Function):
    """Gradient of the convolution with respect to the images."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layout: ConvolvingLayout, geometry: Geometry, bias: Tensor | None
    ) -> Tensor:
        ctx.layout, ctx.geometry, ctx.shape = layout, geometry, x.shape
        return layout.convolve_images(x, geometry, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.layout.convolve_transposed(grad, ctx.geometry, ctx.shape), None, None, None


@torch.library.custom_op("thresher::convolve", mutates_args=())
def convolve(x: Tensor, bias: Tensor | None, layout: int, geometry: Sequence[int]) -> Tensor:
    """Return the convolution, for graphs: compilers and tracers take it as it is."""
    images: Tensor = held(layout).convolve_images(x, Geometry.of_numbers(geometry), bias)
    return images


@torch.library.custom_op("thresher::convolve_transposed", mutates_args=())
def _convolve_transposed(
    grad: Tensor, layout: int, geometry: Sequence[int], shape: Sequence[int]
) -> Tensor:
    x_grad: Tensor = held(layout).convolve_transposed(grad, Geometry.of_numbers(geometry), shape)
    return x_grad


@convolve.register_fake
def _(x: Tensor, bias: Tensor | None, layout: int, geometry: Sequence[int]) -> Tensor:
    size = Geometry.of_numbers(geometry).output_size(x.shape[2], x.shape[3])
    return x.new_empty((x.shape[0], held(layout).shape[0], *size))


@_convolve_transposed.register_fake
def _(grad: Tensor, layout: int, geometry: Sequence[int], shape: Sequence[int]) -> Tensor:
    return grad.new_empty(tuple(shape))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, _, ctx.layout, ctx.geometry = inputs
    ctx.shape = x.shape


def _images_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return _convolve_transposed(grad, ctx.layout, ctx.geometry, ctx.shape), None, None, None


convolve.register_autograd(_images_gradient, setup_context=_remember)
