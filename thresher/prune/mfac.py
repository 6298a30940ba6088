"""M-FAC: Optimal Brain Surgeon under the empirical Fisher, without forming it."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import fisher, scores, updates
from ..parts.budgets import Budget, Global
from .recipe import Recipe


@dataclass(frozen=True)
class MFAC(Recipe, Catalogued):
    """Remove the weights of least OBS saliency under the Fisher of every layer, and compensate.

    A layer is a block of the Fisher. Each sample of the data gives one gradient, and every
    gradient takes four bytes a weight.

    Parameters
    ----------
    score, pattern, budget, update, density
        See :class:`~thresher.prune.recipe.Recipe`.

    References
    ----------
    Frantar et al., M-FAC (2021), sections 3.1 and 4.1: the static algorithm.
    """

    score: scores.Score = fisher.FisherSaliency()
    budget: Budget = Global()
    update: updates.Update = updates.FisherOBS()
    card = Card(
        name="m-fac",
        title="M-FAC: Efficient Matrix-Free Approximations of Second-Order Information",
        authors="Elias Frantar et al.",
        year=2021,
        arxiv="2107.03356",
        summary="Prune by OBS under the empirical Fisher of sample gradients, never forming it.",
    )
