"""RIA: the weight's share in its row and column, times the root of its input's norm."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import scores
from .recipe import Recipe


@dataclass(frozen=True)
class RIA(Recipe, Catalogued):
    """Remove the weights of least relative importance, whole layers at a time.

    Parameters
    ----------
    score, pattern, budget, update, density, tokens, stages
        See :class:`~thresher.prune.recipe.Recipe`.

    References
    ----------
    Zhang et al., Plug-and-Play: An Efficient Post-training Pruning Method for Large Language
    Models (2024), section 3, with its exponent of 0.5. Of the paper's two parts this is the
    score; the permutation of channels for N:M is not.
    """

    score: scores.Score = scores.RelativeImportance() * scores.InputNorm() ** 0.5
    card = Card(
        name="ria",
        title="Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models",
        authors="Yingtao Zhang et al.",
        year=2024,
        summary="Score a weight by its share in its row and column, and the root of its input.",
    )
