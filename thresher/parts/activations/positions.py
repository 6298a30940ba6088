"""Positions of images: which of a convolution's outputs are computed at all."""

from __future__ import annotations

__all__ = ["Positions"]

from typing import Any, ClassVar

import torch

from ...core.errors import LayerError
from .selection import Selection


class Positions(Selection):
    """Drops the same positions of every image and of all its channels.

    A convolution is a product of its weights with a column for every position of its output, so
    that a position that is dropped is a column fewer. Gradients are those of the product with the
    mask.

    Parameters
    ----------
    kept : Tensor of bool, shape (height, width)
        Of the outputs.
    """

    name = "positions"
    held: ClassVar[tuple[str, ...]] = ("kept",)
    straight_through = False
    kept: torch.Tensor

    def __init__(self, kept: torch.Tensor) -> None:
        super().__init__(positions=2)
        self.register_buffer("kept", kept.detach())

    @property
    def settings(self) -> dict[str, Any]:
        """See :class:`Selection`."""
        return {}

    @property
    def drifts(self) -> bool:
        """Whether weights that train make it outdated; how many are kept stays."""
        return False

    def dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Return the positions that become zero."""
        if x.shape[-2:] != self.kept.shape:
            raise LayerError(
                f"{self.place!r} was chosen for outputs of {tuple(self.kept.shape)} positions, and "
                f"is given {tuple(x.shape[-2:])}; choose positions for images of this size"
            )
        return ~self.kept
