"""The shape of a two-dimensional convolution, as sparse kernels take it."""

from __future__ import annotations

__all__ = ["Geometry", "as_matrix", "as_weight"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from ...core.errors import LayerError
from .. import _run


@dataclass(frozen=True)
class Geometry:
    """Kernel size, stride, padding, dilation and groups of a convolution.

    Parameters
    ----------
    kernel, stride : (int, int)
        Rows and columns.
    padding : (int, int, int, int)
        Zeros at the top, bottom, left and right.
    dilation : (int, int)
        Rows and columns.
    groups : int
        As for ``torch.nn.Conv2d``.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        """Return the geometry of a layer.

        Raises
        ------
        LayerError
            If it pads with anything but zeros.
        """
        if conv.padding_mode != "zeros":
            raise LayerError(
                f"padding_mode={conv.padding_mode!r} has no sparse kernel; only 'zeros' has"
            )
        left, right, top, bottom = conv._reversed_padding_repeated_twice
        return cls(
            _pair(conv.kernel_size),
            _pair(conv.stride),
            (top, bottom, left, right),
            _pair(conv.dilation),
            conv.groups,
        )

    @property
    def numbers(self) -> list[int]:
        """All of it in a row, as operators of torch take it."""
        return [*self.kernel, *self.stride, *self.padding, *self.dilation, self.groups]

    @classmethod
    def of_numbers(cls, numbers: Sequence[int]) -> Self:
        """Undo :attr:`numbers`."""
        n = tuple(numbers)
        return cls((n[0], n[1]), (n[2], n[3]), (n[4], n[5], n[6], n[7]), (n[8], n[9]), n[10])

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the output.

        Raises
        ------
        LayerError
            If the kernel does not fit into the padded image.
        """
        sizes = []
        for axis, size in enumerate((height, width)):
            padded = size + sum(self.padding[2 * axis : 2 * axis + 2])
            span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            if padded < span:
                raise LayerError(
                    f"a kernel of {self.kernel} with dilation {self.dilation} does not fit into "
                    f"an image of {height} x {width} with padding {self.padding}"
                )
            sizes.append((padded - span) // self.stride[axis] + 1)
        return sizes[0], sizes[1]

    def columns(self, channels: int) -> int:
        """Return the columns of the weight's matrix for images of so many channels."""
        return self.kernel[0] * self.kernel[1] * channels // self.groups

    def bind(self, shape: tuple[int, int, int, int]) -> Any:
        """Return what kernels take, for images of shape (images, channels, height, width).

        Raises
        ------
        LayerError
            If the kernel does not fit into the padded image.
        """
        return _run.Convolution(
            shape,
            self.output_size(*shape[2:]),
            self.kernel,
            self.stride,
            (self.padding[0], self.padding[2]),
            self.dilation,
            self.groups,
        )


def as_matrix(weight: Tensor) -> Tensor:
    """Return the weight of a convolution as the matrix of its layouts.

    Parameters
    ----------
    weight : Tensor
        Shape (out channels, in channels / groups, rows, columns).

    Returns
    -------
    Tensor
        Shape (out channels, rows * columns * in channels / groups), channels varying fastest, as
        in :class:`thresher.parts.layers.Layer`.
    """
    return weight.movedim(1, -1).reshape(weight.shape[0], math.prod(weight.shape[1:]))


def as_weight(matrix: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Undo :func:`as_matrix`."""
    channels = matrix.shape[1] // (kernel[0] * kernel[1])
    return matrix.reshape(matrix.shape[0], *kernel, channels).movedim(-1, 1).contiguous()


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return values[0], values[1]
