"""Structured pruning: whole channels, neurons and heads go, and the model becomes smaller."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import updates
from ..parts.rankings import GreedyOBS, Ranking
from ..parts.spreads import PerKind, Spread
from .unit_recipe import UnitRecipe


@dataclass(frozen=True)
class Structured(UnitRecipe, Catalogued):
    """Remove the units that other units can make up for best, the same number in every block.

    Layers that took what was removed get the exact weights that come nearest to what the dense
    model gives. A transformers model keeps a shape that its configuration can say: one width of all
    its MLPs, a multiple of 32, and whole key-value heads with their queries. It is saved as a plain
    folder.

    Parameters
    ----------
    ranking, spread, update, density, stages, stock, bias, heads
        See :class:`~thresher.prune.unit_recipe.UnitRecipe`.
    """

    ranking: Ranking = GreedyOBS()
    spread: Spread = PerKind()
    update: updates.Update = updates.DenseTarget(updates.LeastSquares())
    stages: bool = True
    stock: bool = True
    card = Card(
        name="structured",
        title="Coupled groups pruned greedily, refitted exactly towards the dense model",
        authors="The Thresher developers",
        year=2026,
        summary="Remove neurons, channels and heads; refit what took them; load it everywhere.",
    )
