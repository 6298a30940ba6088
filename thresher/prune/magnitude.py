"""Magnitude pruning: remove the smallest weights."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts.scores import Magnitude, Score
from .recipe import Recipe


@dataclass(frozen=True)
class MagnitudePruning(Recipe, Catalogued):
    """Remove the smallest weights of every layer.

    Parameters
    ----------
    score, pattern, budget, update, density
        See :class:`~thresher.prune.recipe.Recipe`.

    References
    ----------
    Han et al., Learning both Weights and Connections for Efficient Neural Networks (2015),
    section 3.
    """

    score: Score = Magnitude()
    card = Card(
        name="magnitude",
        title="Learning both Weights and Connections for Efficient Neural Networks",
        authors="Han et al.",
        year=2015,
        arxiv="1506.02626",
        summary="Remove the weights of smallest magnitude.",
    )
