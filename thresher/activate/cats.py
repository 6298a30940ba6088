"""CATS: neurons of feed-forward networks whose gate is below a threshold."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from .granularity import Granularity, Neurons
from .recipe import ActivationRecipe


@dataclass(frozen=True)
class CATS(ActivationRecipe, Catalogued):
    """Drop the neurons of a feed-forward network whose activated gate is below a threshold.

    The gate itself is computed whole; of a dropped neuron neither the weights that it scales nor
    those that it meets are read. The sparsity is that of neurons. Networks are recognised by what
    their layers do, whatever these are called.

    Parameters
    ----------
    importance, rule, levels, granularity, sparsity
        See :class:`~thresher.activate.recipe.ActivationRecipe`.

    References
    ----------
    Lee et al., CATS: Contextually-Aware Thresholding for Sparsity in Large Language Models (2024),
    section 3.
    """

    granularity: Granularity = Neurons()
    card = Card(
        name="cats",
        title="CATS: Contextually-Aware Thresholding for Sparsity in Large Language Models",
        authors="Lee et al.",
        year=2024,
        arxiv="2404.08763",
        summary="Drop the neurons of feed-forward networks whose gate is below a threshold.",
    )
