"""FLAP: what hardly varies can be replaced by a constant."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import scores
from ..parts.rankings import ByScore, Ranking
from ..parts.spreads import Spread, WholeModel
from .unit_recipe import UnitRecipe


@dataclass(frozen=True)
class FLAP(UnitRecipe, Catalogued):
    """Remove the heads and neurons that fluctuate least, and add their means to a bias.

    Costs are standardised within each group and compared over the whole model, so that blocks keep
    different widths. Layers without a bias get one.

    Parameters
    ----------
    ranking, spread, update, density, stages, stock, bias, heads
        See :class:`~thresher.prune.unit_recipe.UnitRecipe`.

    References
    ----------
    An et al., Fluctuation-based Adaptive Structured Pruning (2024), eqs. 5 to 8.
    """

    ranking: Ranking = ByScore(scores.InputVariance() * scores.Magnitude() ** 2)
    spread: Spread = WholeModel("deviation")
    bias: bool = True
    card = Card(
        name="flap",
        title="Fluctuation-based Adaptive Structured Pruning for Large Language Models",
        authors="Yongqi An et al.",
        year=2023,
        arxiv="2312.11983",
        summary="Remove what fluctuates least, and put its mean into a bias.",
    )
