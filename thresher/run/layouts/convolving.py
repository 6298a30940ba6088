"""Layouts whose kernels multiply images as well as rows."""

from __future__ import annotations

__all__ = ["ConvolvingLayout"]

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from thresher.core.errors import LayerError

from ..convolution import Geometry, as_weight
from .kernel import KernelLayout


class ConvolvingLayout(KernelLayout):
    """A layout of the matrix of a convolution, with a kernel for images.

    Rows are output channels, columns as :func:`thresher.run.convolution.as_matrix` orders them.
    """

    takes_groups: ClassVar[bool] = True
    """Whether the kernel convolves in groups."""

    def convolve(
        self,
        x: Tensor,
        geometry: Geometry,
        bias: Tensor | None = None,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> Tensor:
        """Return the convolution of images with the matrix, in [low, high].

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
        if x.dim() != 4 or geometry.columns(x.shape[1]) != self.shape[1]:
            raise LayerError(
                f"layout {self.name!r} of {self.shape[0]} x {self.shape[1]} weights with kernel "
                f"{geometry.kernel} and {geometry.groups} groups was given images of shape "
                f"{tuple(x.shape)}; expected (images, channels, height, width)"
            )
        if x.dtype != self.dtype:
            raise LayerError(
                f"layout {self.name!r} holds {self.dtype} weights and was given images of "
                f"{x.dtype}; convert one of them, e.g. x.to({self.dtype})"
            )
        self.require_device(x)
        if self.device.type != "cpu":
            return self._convolve_dense(x, geometry, bias).clamp(low, high)
        x = x.contiguous()
        size = geometry.output_size(x.shape[2], x.shape[3])
        out = torch.empty(x.shape[0], self.shape[0], *size, dtype=self.dtype)
        try:
            bound = geometry.bind((x.shape[0], x.shape[1], x.shape[2], x.shape[3]))
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

    def _convolve_dense(self, x: Tensor, geometry: Geometry, bias: Tensor | None) -> Tensor:
        """Convolve with the dense weight, for devices without a kernel."""
        geometry.output_size(x.shape[2], x.shape[3])  # raises when the kernel does not fit
        top, bottom, left, right = geometry.padding
        return nn.functional.conv2d(
            nn.functional.pad(x, (left, right, top, bottom)),
            as_weight(self.to_dense(), geometry.kernel),
            None if bias is None else bias.to(self.dtype),
            geometry.stride,
            0,
            geometry.dilation,
            geometry.groups,
        )
