"""A convolution that computes some positions of its output alone."""

from __future__ import annotations

__all__ = ["PartialConv2d", "convolve_at", "pixels_of", "windows"]

import torch
from torch import nn

from ..core.errors import LayerError
from ..run.layouts.convolution import Geometry


def pixels_of(x: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Return images of shape (..., height, width) with the zeros around them, as rows of pixels."""
    top, bottom, left, right = geometry.padding
    return nn.functional.pad(x, (left, right, top, bottom)).flatten(-2)


def windows(geometry: Geometry, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Return which of :func:`pixels_of` each position sees, of shape (taps, positions)."""
    top, bottom, left, right = geometry.padding
    height, width = size[0] + top + bottom, size[1] + left + right
    grid = torch.arange(height * width, dtype=torch.float64, device=device)
    columns = nn.functional.unfold(
        grid.reshape(1, 1, height, width),
        geometry.kernel,
        geometry.dilation,
        stride=geometry.stride,
    )
    return columns[0].long()


def convolve_at(
    pixels: torch.Tensor,
    seen: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    groups: int,
) -> torch.Tensor:
    """Return a convolution at some positions, of shape (images, outputs, positions).

    Parameters
    ----------
    pixels : Tensor of shape (images, channels, pixels)
        Of :func:`pixels_of`.
    seen : Tensor of shape (taps, positions)
        Columns of :func:`windows`.
    weight : Tensor of shape (outputs, channels / groups, height, width)
    bias : Tensor of shape (outputs,), optional
    groups : int
        Of channels.
    """
    taken = pixels[:, :, seen.flatten()].reshape(len(pixels), groups, -1, seen.shape[1])
    made = (weight.reshape(groups, len(weight) // groups, -1) @ taken).flatten(1, 2)
    return made if bias is None else made + bias[:, None]


class PartialConv2d(nn.Module):
    """Convolves at chosen positions, and gives zero at the others.

    The columns of the unfolded image at these positions are gathered, and multiplied in one
    product, so that it has as many columns fewer as positions are left out.

    Parameters
    ----------
    conv : nn.Conv2d
        Whose weight and bias it shares. Padded by zeros if at all.
    kept : Tensor of bool, shape (height, width)
        Positions of its output.
    size : tuple of int
        Height and width of its input.

    Raises
    ------
    LayerError
        If it is padded by anything else, or the sizes do not fit.
    """

    places: torch.Tensor
    index: torch.Tensor

    def __init__(self, conv: nn.Conv2d, kept: torch.Tensor, size: tuple[int, int]) -> None:
        super().__init__()
        self.geometry = Geometry.of(conv)
        self.weight, self.bias = conv.weight, conv.bias
        self.size, self.shape = tuple(size), tuple(kept.shape)
        columns = windows(self.geometry, size, kept.device)
        if columns.shape[1] != kept.numel():
            raise LayerError(
                f"images of {tuple(size)} give {columns.shape[1]} positions, and the mask has "
                f"{tuple(kept.shape)}"
            )
        places = kept.flatten().nonzero().flatten()
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("index", columns[:, places], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolution of images of shape (images, channels, height, width).

        Raises
        ------
        LayerError
            If they have another size.
        """
        if tuple(x.shape[-2:]) != self.size:
            raise LayerError(
                f"positions were chosen for images of {self.size}, not {tuple(x.shape[-2:])}"
            )
        pixels, groups = pixels_of(x, self.geometry), self.geometry.groups
        made = convolve_at(pixels, self.index, self.weight, self.bias, groups)
        out = made.new_zeros(len(x), made.shape[1], self.shape[0] * self.shape[1])
        return out.index_copy(2, self.places, made).unflatten(2, self.shape)

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        whole = self.shape[0] * self.shape[1]
        return f"{tuple(self.weight.shape)}, positions={len(self.places)} of {whole}"
