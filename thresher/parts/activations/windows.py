"""Windows of feature maps: which of them the blocks of a stage compute."""

from __future__ import annotations

__all__ = ["Windows", "kept_windows", "window_norms", "window_tokens"]

from typing import Any, ClassVar

import torch
from torch import nn

from ...core.top_k import top_k_mask
from .selection import Selection


class Windows(Selection):
    """Drops the windows of a feature map that are smallest, of every image as many.

    It is attached to a stage of a transformer for images, whose blocks attend within windows. Its
    entries are windows, whose sizes are norms. Gradients are those of what is computed.

    Parameters
    ----------
    shares : Tensor of shape (blocks,)
        Of the windows, that each block of the stage leaves out, in [0, 1). One window is kept at
        least.

    Attributes
    ----------
    proved : set of tuple of int
        Sizes of maps on which the blocks were seen to do with some windows what they do with all.
    running : list
        What has the blocks leave windows out in the call that is under way.
    """

    name = "windows"
    held: ClassVar[tuple[str, ...]] = ("shares",)
    straight_through = False
    shares: torch.Tensor

    def __init__(self, shares: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("shares", shares.detach().float())
        self.proved: set[tuple[int, int]] = set()
        self.running: list[Any] = []

    @property
    def settings(self) -> dict[str, Any]:
        """See :class:`~thresher.parts.activations.selection.Selection`."""
        return {}

    @property
    def drifts(self) -> bool:
        """Whether weights that train make it outdated; how many are kept stays."""
        return False

    def kept(self, windows: int) -> list[int]:
        """Return how many of so many windows each block computes."""
        # As the shares were before they were held in float32.
        return [kept_windows(round(share, 6), windows) for share in self.shares.tolist()]

    def dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Return which windows are left out, of norms of shape (blocks, images, windows)."""
        kept = zip(x, self.kept(x.shape[-1]), strict=True)
        return torch.stack([~top_k_mask(norms, count) for norms, count in kept])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return which windows are computed, a mask of the norms' shape."""
        return ~self.dropped(x)


def kept_windows(share: float, windows: int) -> int:
    """Return how many windows stay where a share of them is left out, one at least."""
    return max(1, round((1 - share) * windows))


def window_tokens(
    size: tuple[int, int], window: int, shift: int, device: torch.device
) -> torch.Tensor:
    """Return which token of a map is where in each window.

    Parameters
    ----------
    size : tuple of int
        Height and width of the map, which is filled up to whole windows below and on the right.
    window : int
        Height and width of a window.
    shift : int
        By how many rows and columns the map is rolled, towards its first ones, before it is cut
        into windows.
    device : torch.device

    Returns
    -------
    Tensor of int64, shape (windows, window * window)
        Of the rows of the map one after another; -1 where it was filled up.
    """
    height, width = size
    tokens = torch.arange(height * width, device=device).reshape(size)
    tokens = nn.functional.pad(tokens, (0, -width % window, 0, -height % window), value=-1)
    tokens = tokens.roll((-shift, -shift), (0, 1))
    return tokens.unfold(0, window, window).unfold(1, window, window).reshape(-1, window**2)


def window_norms(x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the l2 norm of each window's activations, of shape (images, windows).

    Parameters
    ----------
    x : Tensor of shape (images, tokens, channels)
    tokens : Tensor of shape (windows, places)
        See :func:`window_tokens`.
    """
    squares = x.detach().float().square().sum(-1)
    # What the map is filled up with, at -1, has none.
    return nn.functional.pad(squares, (0, 1))[:, tokens].sum(-1).sqrt()
