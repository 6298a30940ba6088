"""OWL: Wanda with more weights for the blocks that have more outliers."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import budgets
from ..parts.patterns import Pattern, Unstructured
from ..parts.scores import InputNorm, Magnitude, Score
from .recipe import Recipe


@dataclass(frozen=True)
class OWLPruning(Recipe, Catalogued):
    """Prune blocks by Wanda, to densities that rise with their share of outliers.

    Parameters
    ----------
    score, pattern, budget, update, density, tokens, stages
        See :class:`~thresher.prune.recipe.Recipe`. With the score and the update of SparseGPT it
        is the paper's second variant: ``prune(model, "sparsegpt", budget="owl")``.

    References
    ----------
    Yin et al., Outlier Weighed Layerwise Sparsity (2023), section 3.
    """

    score: Score = Magnitude() * InputNorm()
    pattern: Pattern = Unstructured("row")
    budget: budgets.Budget = budgets.OWL()
    card = Card(
        name="owl",
        title=(
            "Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to "
            "High Sparsity"
        ),
        authors="Lu Yin et al.",
        year=2023,
        arxiv="2310.05175",
        summary="Wanda, with higher densities for blocks that have more outliers.",
    )
