"""Random supports in proportion to a score, whose survivors stand for what was not drawn."""

from __future__ import annotations

__all__ = ["PrioritySampling"]

from dataclasses import dataclass

import torch

from ...core.errors import OptionError
from ..chooser import MaskChooser
from ..patterns import Unstructured
from ..scores import Random
from ..statistics import Statistics
from .base import Update


@dataclass(frozen=True)
class PrioritySampling(Update):
    """Keep large weights, draw among medium ones and enlarge those drawn, remove small ones.

    Where weights compete freely (the unstructured pattern), the pruned matrix has the dense one's
    entries as its expectation, but for those that are too small to take part. In other patterns
    survivors stay as they are.

    Parameters
    ----------
    considered : float, default 2.0
        How many times as many weights as are kept take part, the largest by score; at least 1.
    seed : int, default 0
        With the layer's name it fixes the sample, whatever the order of layers.

    Raises
    ------
    OptionError
        If `considered` is below 1.

    Notes
    -----
    With scores s and u uniform in (0, 1], the priorities ``s / u`` are compared. Where t is the
    largest of those that lose, a weight had the probability ``min(1, s / t)`` of being kept, and
    survivors are divided by it.

    References
    ----------
    Duffield, Lund and Thorup, Priority sampling for estimation of arbitrary subset sums (2007).
    """

    considered: float = 2.0
    seed: int = 0
    name = "priority-sampling"

    def __post_init__(self) -> None:
        if not self.considered >= 1:
            raise OptionError(
                f"considered {self.considered} is out of range; it is how many times as many "
                "weights as are kept take part, at least 1"
            )

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw, and enlarge what was drawn; see :class:`Update` for the shapes."""
        scores = choose.score(weight, statistics).clamp(min=0)
        count = min(scores.numel(), round(self.considered * choose.keep))
        least = scores.flatten().topk(count).values[-1]
        # Uniform in (0, 1], so that nothing is divided by zero.
        priorities = scores / (1 - Random(self.seed)(weight, statistics))
        priorities = priorities.masked_fill(scores < least, 0)
        mask = choose.pattern.mask(priorities, choose.keep)
        if isinstance(choose.pattern, Unstructured):
            lost = priorities.masked_fill(mask, 0)
            limit = lost.amax() if choose.pattern.per == "tensor" else lost.amax(-1, keepdim=True)
            chance = torch.where(scores > 0, scores / limit, 1).clamp(max=1)
            weight = weight / chance
        return torch.where(mask, weight, 0), mask
