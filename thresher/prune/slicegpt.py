"""SliceGPT: turn the residual stream to its principal directions, and delete the least of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..core.card import Card, Catalogued
from ..core.errors import OptionError
from .smaller_recipe import SmallerRecipe


@dataclass(frozen=True)
class SliceGPT(SmallerRecipe, Catalogued):
    """Delete the directions of the residual stream in which least is read.

    The scales of norms go into the layers after them; then a rotation of the stream changes
    nothing, and that to its principal directions puts what matters least last. All layers and the
    embeddings become narrower, and a transformers model stays one that its configuration
    describes: it is saved as a plain folder. Embeddings and head that were one matrix become two,
    since the head takes the scale of the last norm.

    Parameters
    ----------
    density : float, optional
        Share of the layers' weights to keep, in (0, 1): the share of the stream's width.
    multiple : int, default 8
        What is left of the width is a multiple of it, if that is less than half the width, and
        such that a configuration can say it: of 576 with nine heads 504 or 432, or with 1 any
        multiple of nine.

    Raises
    ------
    OptionError
        If an option is out of range.

    References
    ----------
    Ashkboos et al., SliceGPT (2024), sections 3.1 to 3.4.

    Notes
    -----
    The paper turns the stream anew at every attention and MLP, and multiplies the skip connection
    by a matrix that leads from one basis to the next; no stock model has such matrices. Here one
    rotation, of the second moments of what all layers read added up, serves the whole model.
    Norms that subtract a mean, which the paper turns into those that do not, are refused: no stock
    model of those architectures has others.
    """

    removes: ClassVar[str] = "directions"
    density: float | None = None
    multiple: int = 8
    card = Card(
        name="slicegpt",
        title="SliceGPT: Compress Large Language Models by Deleting Rows and Columns",
        authors="Saleh Ashkboos et al.",
        year=2024,
        arxiv="2401.15024",
        summary="Turn the residual stream to its principal directions and delete the least.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.multiple < 1:
            raise OptionError(f"multiple {self.multiple} is out of range; it is 1 or more")

    def basis(self, moment: torch.Tensor) -> torch.Tensor:
        """Return the directions of the stream, the one to be deleted first last.

        Parameters
        ----------
        moment : Tensor of float64, shape (width, width)
            Second moment of what layers read, added up over them.

        Returns
        -------
        Tensor of float64, shape (width, width)
            Orthonormal columns.
        """
        return torch.linalg.eigh(moment).eigenvectors.flip(1)
