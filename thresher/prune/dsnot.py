"""DSnoT: a better mask for any sparse model, without training."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import scores, updates
from ..parts.patterns import Pattern, Unstructured
from .recipe import Recipe


@dataclass(frozen=True)
class DSnoTPruning(Recipe, Catalogued):
    """Start from Wanda's mask and swap weights until the expected output error is small.

    Parameters
    ----------
    score, pattern, budget, update, density
        See :class:`~thresher.prune.recipe.Recipe`; another `score` gives another first mask.

    References
    ----------
    Zhang et al., Dynamic Sparse No Training (2023), section 3.2.
    """

    score: scores.Score = scores.Magnitude() * scores.InputNorm()
    pattern: Pattern = Unstructured("row")
    update: updates.Update = updates.DSnoT()
    card = Card(
        name="dsnot",
        title="Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs",
        authors="Zhang et al.",
        year=2023,
        arxiv="2310.08915",
        summary="Swap kept for removed weights to cancel each row's expected output error.",
    )
