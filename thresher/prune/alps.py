"""ALPS: a support that is chosen for the whole layer at once."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import scores, updates
from .recipe import Recipe


@dataclass(frozen=True)
class ALPS(Recipe, Catalogued):
    """Search the support of a whole layer by ADMM, then give it its exact weights.

    Parameters
    ----------
    score, pattern, budget, update, density, tokens, stages
        See :class:`~thresher.prune.recipe.Recipe`.

    References
    ----------
    Meng et al., ALPS (2024), algorithm 1. Beyond the paper, the search is held against
    SparseGPT's support and the better one is kept.
    """

    score: scores.Score = scores.OBSSaliency()
    update: updates.Update = updates.ADMM()
    card = Card(
        name="alps",
        title=(
            "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language "
            "Models"
        ),
        authors="Xiang Meng et al.",
        year=2024,
        arxiv="2406.07831",
        summary="Choose a layer's support as a whole by ADMM, and solve for its exact weights.",
    )
