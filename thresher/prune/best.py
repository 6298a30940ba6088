"""The best of one-shot pruning in one recipe."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import scores, tokens, updates
from .recipe import Recipe


@dataclass(frozen=True)
class Best(Recipe, Catalogued):
    """Aim every layer at the dense model's outputs, and search its support as a whole.

    Each part can be taken out or used in another recipe: the dense target
    (:class:`~thresher.parts.updates.dense_target.DenseTarget`), the support of the whole layer
    (:class:`~thresher.parts.updates.admm.ADMM`), the tokens that are heard more
    (:class:`~thresher.parts.tokens.ByAttention`), and layers that are calibrated after those
    before them were pruned (`stages`).

    Parameters
    ----------
    score, pattern, budget, update, density, tokens, stages
        See :class:`~thresher.prune.recipe.Recipe`.
    """

    score: scores.Score = scores.OBSSaliency()
    update: updates.Update = updates.DenseTarget(updates.ADMM())
    tokens: tokens.TokenWeights = tokens.ByAttention()
    stages: bool = True
    card = Card(
        name="best",
        title="One-shot pruning towards the dense model, by attention, over whole layers",
        authors="The Thresher developers",
        year=2026,
        summary="Aim at the dense model's outputs, hear tokens by attention, search supports.",
    )
