"""SlimGPT: heads and neurons removed by the exact error of removing all of each."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import updates
from ..parts.rankings import GreedyOBS, Ranking
from ..parts.spreads import Incremental, Spread
from .unit_recipe import UnitRecipe


@dataclass(frozen=True)
class SlimGPT(UnitRecipe, Catalogued):
    """Remove the cheapest heads and neurons round by round, more of them in later blocks.

    What is left is refitted exactly in the end, which is where the paper's rounds arrive. Blocks
    keep different widths.

    Parameters
    ----------
    ranking, spread, update, density, stages, stock, bias, heads
        See :class:`~thresher.prune.unit_recipe.UnitRecipe`.

    References
    ----------
    Ling et al., SlimGPT (2024), sections 3.2 to 3.4.
    """

    ranking: Ranking = GreedyOBS()
    spread: Spread = Incremental()
    update: updates.Update = updates.LeastSquares()
    card = Card(
        name="slimgpt",
        title="SlimGPT: Layer-wise Structured Pruning for Large Language Models",
        authors="Gui Ling et al.",
        year=2024,
        arxiv="2412.18110",
        summary="Remove heads and neurons by their exact error, more in later blocks.",
    )
