"""A budget that takes less from the first blocks, whose errors all later ones inherit."""

from __future__ import annotations

__all__ = ["ArithmeticProgression"]

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.options import check_number
from .budgets import Budget, LayerSummary, spread_over_blocks


@dataclass(frozen=True)
class ArithmeticProgression(Budget):
    """Less to every later block, in equal steps.

    Parameters
    ----------
    spread : float, default 0.03
        How much more than the mean the first block keeps, and how much less the last one; less
        where a density would leave [0, 1].

    Raises
    ------
    OptionError
        If `spread` is not in [0, 1].

    References
    ----------
    Huang et al., Determining Layer-wise Sparsity for Large Language Models Through a Theoretical
    Perspective (2025). There the step between blocks is what is searched for, by the perplexity of
    a few trials; it is twice this `spread` over the number of blocks less one.
    """

    spread: float = 0.03
    name = "arithmetic-progression"

    def __post_init__(self) -> None:
        check_number("spread, what the first block keeps more,", self.spread, most=1)

    def __call__(self, layers: Sequence[LayerSummary], density: float) -> list[float]:
        """Return one density per block."""
        blocks = sorted({layer.block for layer in layers})
        falling = {block: -float(place) for place, block in enumerate(blocks)}
        return spread_over_blocks(layers, falling, density, self.spread)
