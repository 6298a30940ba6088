"""CFSP: neurons by activation times relative weight, fewer of them from blocks that change more."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts.rankings import ByScore, Ranking
from ..parts.scores import InputNorm, RelativeImportance
from ..parts.spreads import ByChange, Spread
from .unit_recipe import UnitRecipe


@dataclass(frozen=True)
class CFSP(UnitRecipe, Catalogued):
    """Remove neurons, most from the blocks that turn the states of tokens least.

    What a block is worth is the angle between what it is given and what it gives; what a neuron
    is worth, the size of its activations times the relative size of the weights that take them.
    One pass over the data says both. Blocks keep different widths.

    Parameters
    ----------
    ranking, spread, update, density, stages, stock, bias, heads
        See :class:`~thresher.prune.unit_recipe.UnitRecipe`.

    References
    ----------
    Wang et al., CFSP (2024), section 3. Its training afterwards, of ranks that follow the worth of
    blocks, is the user's to do.

    Notes
    -----
    The score is recalled, as is the logistic function of standardised angles: the paper's text was
    not at hand, and its code has no licence. As others state its equation 8, a neuron's weight is
    divided by the magnitudes of its row of the last layer alone, and shares of rows of the first
    layers are added, which are the same for all neurons where magnitudes are added up; here
    the share in the neuron's own column is added, which is its activation once more.
    """

    ranking: Ranking = ByScore(RelativeImportance() * InputNorm())
    spread: Spread = ByChange()
    heads: bool = False
    card = Card(
        name="cfsp",
        title="CFSP: An Efficient Structured Pruning Framework for LLMs with Coarse-to-Fine "
        "Activation Information",
        authors="Yuxin Wang et al.",
        year=2024,
        arxiv="2409.13199",
        summary="Remove neurons by activation and weight, most where blocks change least.",
    )
