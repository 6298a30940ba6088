"""Sketched pruning: a random mask in proportion to a score, in place of the largest scores."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import scores
from .recipe import Recipe


@dataclass(frozen=True)
class SketchedPruning(Recipe, Catalogued):
    """Draw the weights to keep at random, each in proportion to its magnitude.

    It is meant for networks that have not been trained yet, and looks at no data. Of any score
    the random version is ``score * SamplingFactor(seed)``; with data the paper's optimal sketch is
    that of ``Magnitude() * InputNorm()``.

    Parameters
    ----------
    score, pattern, budget, update, density, tokens, stages
        See :class:`~thresher.prune.recipe.Recipe`. The seed is the score's.

    References
    ----------
    Bar and Giryes, Pruning at Initialization -- A Sketching Perspective (2023): masks at
    initialisation as sketches of a product, and random ones in place of the largest scores.
    """

    score: scores.Score = scores.Magnitude() * scores.SamplingFactor()
    card = Card(
        name="sketched",
        title="Pruning at Initialization -- A Sketching Perspective",
        authors="Noga Bar and Raja Giryes",
        year=2023,
        arxiv="2305.17559",
        summary="Draw a mask at random in proportion to the magnitude, before training.",
    )
