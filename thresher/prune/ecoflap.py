"""ECoFLaP: densities of blocks from passes alone, then Wanda within each layer."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts import budgets
from ..parts.patterns import Pattern, Unstructured
from ..parts.scores import InputNorm, Magnitude, Score
from .recipe import Recipe


@dataclass(frozen=True)
class ECoFLaP(Recipe, Catalogued):
    """Share weights out among blocks by their gradient's norm, and prune each layer by Wanda.

    The norm is estimated without a backward pass, by moving the weights of one block at a time to
    and fro: two passes of the model for every block and each of up to 32 samples.

    Parameters
    ----------
    score, pattern, budget, update, density, tokens, stages
        See :class:`~thresher.prune.recipe.Recipe`. With SparseGPT as the fine step it is
        ``prune(model, "sparsegpt", budget="coarse-to-fine")``.

    References
    ----------
    Sung et al., ECoFLaP (2024), section 3.
    """

    score: Score = Magnitude() * InputNorm()
    pattern: Pattern = Unstructured("row")
    budget: budgets.Budget = budgets.CoarseToFine()
    card = Card(
        name="ecoflap",
        title="ECoFLaP: Efficient Coarse-to-Fine Layer-Wise Pruning for Vision-Language Models",
        authors="Yi-Lin Sung et al.",
        year=2023,
        arxiv="2310.02998",
        summary="Wanda, with densities of blocks from zeroth-order gradients of the loss.",
    )
