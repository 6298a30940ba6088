"""Wanda: magnitude times input norm, compared within each output row."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import scores
from ..parts.patterns import Pattern, Unstructured
from .recipe import Recipe


@dataclass(frozen=True)
class Wanda(Recipe, Catalogued):
    """Remove the weights whose magnitude times input norm is smallest in their row.

    Parameters
    ----------
    score, pattern, budget, update, density
        See :class:`~thresher.prune.recipe.Recipe`.

    References
    ----------
    Sun et al., A Simple and Effective Pruning Approach for Large Language Models (2023),
    section 3.
    """

    score: scores.Score = scores.Magnitude() * scores.InputNorm()
    pattern: Pattern = Unstructured("row")
    card = Card(
        name="wanda",
        title="A Simple and Effective Pruning Approach for Large Language Models",
        authors="Sun et al.",
        year=2023,
        arxiv="2306.11695",
        summary="Score a weight by its magnitude times the norm of its input, per output row.",
    )
