"""CHITA: support and weights together, under a quadratic model of the loss."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import scores, updates
from ..parts.budgets import Budget, Global
from .recipe import Recipe


@dataclass(frozen=True)
class CHITA(Recipe, Catalogued):
    """Choose and update all weights of a layer together, by iterative hard thresholding.

    A layer is a block of the Fisher. Its search begins with the weights that magnitude pruning of
    all layers leaves, and keeps as many. Each sample of the data gives one gradient, and every
    gradient takes four bytes a weight. Along falling densities
    (:func:`~thresher.prune.gradual.prune_gradually`) it is CHITA++.

    Parameters
    ----------
    score, pattern, budget, update, density
        See :class:`~thresher.prune.recipe.Recipe`.

    References
    ----------
    Benbaki et al., Fast as CHITA (2023), section 3; section 3.3 for CHITA++.
    """

    score: scores.Score = scores.Magnitude()
    budget: Budget = Global()
    update: updates.Update = updates.HardThresholding()
    card = Card(
        name="chita",
        title="Fast as CHITA: Neural Network Pruning with Combinatorial Optimization",
        authors="Riade Benbaki et al.",
        year=2023,
        arxiv="2302.14623",
        summary="Choose and update weights together by hard thresholding a model of the loss.",
    )
