"""The lazy neuron phenomenon: zeros that training leaves, and the k largest neurons of a token."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts.activations.rules import PerToken, Rule
from .granularity import Granularity, Hidden
from .recipe import ActivationRecipe


@dataclass(frozen=True)
class LazyNeuron(ActivationRecipe, Catalogued):
    """Keep the same number of neurons of a feed-forward network for every token, the largest ones.

    A model trains with it: gradients go through what is kept, and no threshold has to follow the
    weights. With ``sparsity=0`` nothing is dropped, and the record has the share of zeros that the
    activations show by themselves, layer by layer.

    Parameters
    ----------
    importance, rule, levels, granularity, sparsity
        See :class:`~thresher.activate.recipe.ActivationRecipe`.

    References
    ----------
    Li et al., The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers
    (2022), section 2 for zeros, section 4 for the Top-k transformer.
    """

    rule: Rule = PerToken(straight_through=False)
    granularity: Granularity = Hidden()
    card = Card(
        name="lazy-neuron",
        title="The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers",
        authors="Li et al.",
        year=2022,
        arxiv="2210.06313",
        summary="Keep the k largest neurons of every token, also while the model trains.",
    )
