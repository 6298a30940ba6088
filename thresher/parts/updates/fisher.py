"""The Optimal Brain Surgeon update under the empirical Fisher of a whole layer."""

from __future__ import annotations

__all__ = ["FisherOBS"]

from dataclasses import dataclass

import torch

from ..chooser import MaskChooser
from ..fisher import GradientSamples
from ..statistics import Statistics
from .base import Update


@dataclass(frozen=True)
class FisherOBS(Update):
    """Have the survivors make up for every removed weight as if it were the only one.

    Parameters
    ----------
    damping : float, default 0.01
        Ridge relative to the mean diagonal of the Fisher.

    Notes
    -----
    With F the empirical Fisher and Q the removed weights, ``w - F^-1 sum_q w_q / [F^-1]_qq e_q``,
    then zeros at Q: one product with the inverse for all. It is exact where one weight is removed.

    References
    ----------
    Frantar et al., M-FAC: Efficient Matrix-Free Approximations of Second-Order Information
    (2021), section 4.1.
    """

    damping: float = 0.01
    name = "fisher-obs"
    needs = frozenset({GradientSamples})

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose, then compensate; see :class:`Update` for the shapes."""
        gradients, mask = statistics[GradientSamples], choose(weight)
        removed = torch.where(mask, 0, weight) / gradients.inverse_diagonal(self.damping)
        change = gradients.fisher(self.damping).solve(removed.flatten()).reshape(weight.shape)
        return torch.where(mask, (weight - change).to(weight.dtype), 0), mask
