"""Spectrum-preserving sparsification: large weights stay, medium ones are drawn and enlarged."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import scores, updates
from .recipe import Recipe


@dataclass(frozen=True)
class SpectrumPreserving(Recipe, Catalogued):
    """Sparsify weights so that their spectrum stays: by a sample that is right on average.

    Weights too small to matter are removed, the largest stay as they are, and of the others some
    are drawn in proportion to their magnitude and enlarged for those that are not.

    Parameters
    ----------
    score, pattern, budget, update, density, tokens, stages
        See :class:`~thresher.prune.recipe.Recipe`. The seed is the update's.

    References
    ----------
    Yao, Yu and Koutis, Neural Network Pruning as Spectrum Preserving Process (2023). After its
    abstract: the paper's own probabilities were not at hand, and are those of priority sampling
    here.
    """

    score: scores.Score = scores.Magnitude()
    update: updates.Update = updates.PrioritySampling()
    card = Card(
        name="spectrum-preserving",
        title="Neural Network Pruning as Spectrum Preserving Process",
        authors="Shibo Yao, Dantong Yu, Ioannis Koutis",
        year=2023,
        arxiv="2307.08982",
        summary="Keep large weights, draw medium ones in proportion to magnitude and enlarge them.",
    )
