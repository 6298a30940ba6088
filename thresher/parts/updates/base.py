"""The interface of updates, and the one that changes nothing."""

from __future__ import annotations

__all__ = ["Keep", "Update"]

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from ...core.named import Spelled
from ..chooser import MaskChooser
from ..moments import Moment
from ..statistics import Statistics


class Update(Spelled, ABC):
    """Base class of updates."""

    kind = "update"

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """The moments that must be collected; none by default."""
        return frozenset()

    @abstractmethod
    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prune a weight.

        Parameters
        ----------
        weight : Tensor of shape (..., rows, columns)
            Dense float32 weights; not modified.
        choose : MaskChooser
            Picks the support.
        statistics : Statistics
            Of the layer's inputs.

        Returns
        -------
        weight : Tensor
            Same shape, zero wherever the mask is false.
        mask : Tensor of bool
            The support, with exactly ``choose.keep`` true entries.
        """


@dataclass(frozen=True)
class Keep(Update):
    """Leave the survivors as they are."""

    name = "keep"

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Zero what was not chosen."""
        mask = choose(weight)
        return torch.where(mask, weight, 0), mask
