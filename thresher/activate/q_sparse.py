"""Q-Sparse: the largest inputs of every projection, with gradients that go straight through."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts.activations.rules import PerToken, Rule
from .recipe import ActivationRecipe


@dataclass(frozen=True)
class QSparse(ActivationRecipe, Catalogued):
    """Keep the same number of inputs of every projection for every token, and train so.

    Gradients pass a dropped input as if it had been kept, so that none stays dropped for good. Put
    it on a model before training, from scratch or going on with a trained one: the number that is
    kept needs no calibration, and the data only shows which layers are reached.

    Parameters
    ----------
    importance, rule, levels, granularity, sparsity
        See :class:`~thresher.activate.recipe.ActivationRecipe`.
        ``rule=PerToken(straight_through=False)`` has the gradient of the mask instead.

    Notes
    -----
    Squared ReLU, which the paper gates feed-forward networks with, is the model's own business, as
    ``hidden_act="relu2"`` of a Llama. Weights of 1.58 bits, and the choice within blocks of inputs,
    are left out.

    References
    ----------
    Wang et al., Q-Sparse: All Large Language Models can be Fully Sparsely-Activated (2024),
    section 2.
    """

    rule: Rule = PerToken()
    card = Card(
        name="q-sparse",
        title="Q-Sparse: All Large Language Models can be Fully Sparsely-Activated",
        authors="Wang et al.",
        year=2024,
        arxiv="2407.10969",
        summary="Keep the k largest inputs of every projection and train straight through.",
    )
