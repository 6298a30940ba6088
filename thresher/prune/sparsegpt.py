"""SparseGPT: Optimal Brain Surgeon, one sweep per layer."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import scores, updates
from .recipe import Recipe


@dataclass(frozen=True)
class SparseGPT(Recipe, Catalogued):
    """Choose by the OBS saliency, block by block of columns, and compensate to the right.

    Parameters
    ----------
    score, pattern, budget, update, density
        See :class:`~thresher.prune.recipe.Recipe`.

    References
    ----------
    Frantar and Alistarh, SparseGPT (2023), algorithm 1.
    """

    score: scores.Score = scores.OBSSaliency()
    update: updates.Update = updates.OBS()
    card = Card(
        name="sparsegpt",
        title="SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
        authors="Elias Frantar, Dan Alistarh",
        year=2023,
        arxiv="2301.00774",
        summary="Prune by OBS saliency in one sweep of each layer, later columns compensating.",
    )
