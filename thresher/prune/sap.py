"""SAP: magnitude pruning with densities from how compressible each layer is."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import scores
from ..parts.budgets import Budget
from ..parts.compressibility import PQIndex
from .recipe import Recipe


@dataclass(frozen=True)
class SAP(Recipe, Catalogued):
    """Prune by magnitude, layers in proportion to what their PQ index says that they need.

    Parameters
    ----------
    score, pattern, budget, update, density, tokens, stages
        See :class:`~thresher.prune.recipe.Recipe`.

    References
    ----------
    Diao et al., Pruning Deep Neural Networks from a Sparsity Perspective (2023), algorithm 1: one
    round of it, at a density that is asked for. The paper's rounds of retraining are not made.
    """

    score: scores.Score = scores.Magnitude()
    budget: Budget = PQIndex()
    card = Card(
        name="sap",
        title="Pruning Deep Neural Networks from a Sparsity Perspective",
        authors="Enmao Diao et al.",
        year=2023,
        arxiv="2302.05601",
        summary="Magnitude pruning with layer densities from the PQ index of their weights.",
    )
