"""R-Sparse: inputs below a threshold, with a matrix of low rank in the place of their weights."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts.activations.rules import Rule, SplitByRank
from .recipe import ActivationRecipe


@dataclass(frozen=True)
class RSparse(ActivationRecipe, Catalogued):
    """Multiply large inputs by the weights, and small ones by a matrix of low rank near them.

    The factors of that matrix are read for every token, and count as weights read: at the same
    sparsity fewer inputs are kept than by TEAL.

    Parameters
    ----------
    importance, rule, levels, granularity, sparsity
        See :class:`~thresher.activate.recipe.ActivationRecipe`.

    Notes
    -----
    This is the paper's uniform recipe, one ratio for all layers. The search by evolution for a
    ratio of each layer, on the loss of the whole model, is left out.

    References
    ----------
    Zhang et al., R-Sparse: Rank-Aware Activation Sparsity for Efficient LLM Inference (2025),
    section 4.
    """

    rule: Rule = SplitByRank()
    card = Card(
        name="r-sparse",
        title="R-Sparse: Rank-Aware Activation Sparsity for Efficient LLM Inference",
        authors="Zhang et al.",
        year=2025,
        arxiv="2504.19449",
        summary="Multiply large inputs exactly, and small ones by a matrix of low rank.",
    )
