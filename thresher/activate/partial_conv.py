"""A convolution that computes some positions of its output alone."""

from __future__ import annotations

__all__ = ["PartialConv2d"]

import torch
from torch import nn

from ..core.errors import LayerError


class PartialConv2d(nn.Module):
    """Convolves at chosen positions, and gives zero at the others.

    The columns of the unfolded image at these positions are gathered, and multiplied in one
    product, so that it has as many columns fewer as positions are left out.

    Parameters
    ----------
    conv : nn.Conv2d
        Whose weight and bias it shares. In one group, padded by zeros if at all.
    kept : Tensor of bool, shape (height, width)
        Positions of its output.
    size : tuple of int
        Height and width of its input.

    Raises
    ------
    LayerError
        If the convolution is of another kind, or the sizes do not fit.
    """

    places: torch.Tensor
    index: torch.Tensor

    def __init__(self, conv: nn.Conv2d, kept: torch.Tensor, size: tuple[int, int]) -> None:
        super().__init__()
        if conv.groups != 1 or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise LayerError(
                "only convolutions in one group, padded by a number of zeros, are computed in part"
            )
        self.weight, self.bias = conv.weight, conv.bias
        self.padding, self.size, self.shape = conv.padding, tuple(size), tuple(kept.shape)
        height, width = (n + 2 * p for n, p in zip(size, conv.padding, strict=True))
        grid = torch.arange(height * width, device=kept.device).reshape(1, 1, height, width)
        columns = nn.functional.unfold(
            grid.double(), conv.kernel_size, conv.dilation, stride=conv.stride
        )[0].long()
        if columns.shape[1] != kept.numel():
            raise LayerError(
                f"images of {tuple(size)} give {columns.shape[1]} positions, and the mask has "
                f"{tuple(kept.shape)}"
            )
        places = kept.flatten().nonzero().flatten()
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("index", columns[:, places].flatten(), persistent=False)

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
        rows, columns = self.padding
        padded = nn.functional.pad(x, (columns, columns, rows, rows)).flatten(2)
        taken = padded[:, :, self.index].reshape(len(x), -1, len(self.places))
        made = self.weight.flatten(1) @ taken
        if self.bias is not None:
            made = made + self.bias[:, None]
        out = made.new_zeros(len(x), made.shape[1], self.shape[0] * self.shape[1])
        return out.index_copy(2, self.places, made).unflatten(2, self.shape)

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        whole = self.shape[0] * self.shape[1]
        return f"{tuple(self.weight.shape)}, positions={len(self.places)} of {whole}"
