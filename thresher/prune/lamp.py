"""LAMP: magnitude pruning with layer densities that need no tuning."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import budgets, scores
from .recipe import Recipe


@dataclass(frozen=True)
class LAMPPruning(Recipe, Catalogued):
    """Prune by magnitude squared relative to the larger weights of the same layer.

    Parameters
    ----------
    score, pattern, budget, update, density
        See :class:`~thresher.prune.recipe.Recipe`.

    References
    ----------
    Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning (2021), eq. 2.
    """

    score: scores.Score = scores.Magnitude()
    budget: budgets.Budget = budgets.LAMP()
    card = Card(
        name="lamp",
        title="Layer-adaptive sparsity for the Magnitude-based Pruning",
        authors="Lee et al.",
        year=2020,
        arxiv="2010.07611",
        summary="Magnitude pruning with one threshold on the layer-adaptive score.",
    )
