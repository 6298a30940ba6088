"""Structurally prune anything: the same scores and repairs for channels of any network."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import updates
from ..parts.rankings import AllByScore, GreedyOBS, Ranking
from ..parts.spreads import Spread, WholeModel
from .unit_recipe import UnitRecipe


@dataclass(frozen=True)
class SPA(UnitRecipe, Catalogued):
    """Remove the coupled channels whose weights are smallest, those of all layers together.

    It needs no data, but an example of what the model is called with.

    Parameters
    ----------
    ranking, spread, update, density, stages, stock, bias, heads
        See :class:`~thresher.prune.unit_recipe.UnitRecipe`.

    References
    ----------
    Wang et al., Structurally Prune Anything (2024), section 3.
    """

    ranking: Ranking = AllByScore()
    spread: Spread = WholeModel("mean")
    card = Card(
        name="spa",
        title="Structurally Prune Anything: Any Architecture, Any Framework, Any Time",
        authors="Xun Wang et al.",
        year=2024,
        arxiv="2403.18955",
        summary="Remove coupled channels of any network by the size of all their weights.",
    )


@dataclass(frozen=True)
class OBSPA(UnitRecipe, Catalogued):
    """Remove the coupled channels that others can make up for, with no training after it.

    Parameters
    ----------
    ranking, spread, update, density, stages, stock, bias, heads
        See :class:`~thresher.prune.unit_recipe.UnitRecipe`.

    References
    ----------
    Wang et al., Structurally Prune Anything (2024), section 4. Its statistics of batch norms, taken
    anew, and its calibration on noise are the user's to choose.
    """

    ranking: Ranking = GreedyOBS()
    spread: Spread = WholeModel("mean")
    update: updates.Update = updates.LeastSquares()
    card = Card(
        name="obspa",
        title="Structurally Prune Anything: Any Architecture, Any Framework, Any Time",
        authors="Xun Wang et al.",
        year=2024,
        arxiv="2403.18955",
        summary="Remove coupled channels of any network; the others make up for them exactly.",
    )
