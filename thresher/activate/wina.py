"""WINA: inputs by magnitude times the norm of the weights that they meet."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts.activations.importance import ColumnNorm, Importance
from .recipe import ActivationRecipe


@dataclass(frozen=True)
class WINA(ActivationRecipe, Catalogued):
    """Drop the inputs whose magnitude times the norm of their column of weights is smallest.

    Parameters
    ----------
    importance, rule, levels, granularity, sparsity
        See :class:`~thresher.activate.recipe.ActivationRecipe`.

    Notes
    -----
    The paper keeps the same number of inputs for every token (``rule="top-k"``); by default a
    threshold is calibrated instead, which is a comparison per input, and lets tokens differ. The
    bound of the paper holds where the columns of a weight are orthogonal; the rotation that makes
    them so, which changes every weight of the model, is left out.

    References
    ----------
    Chen et al., WINA: Weight Informed Neuron Activation for Accelerating Large Language Model
    Inference (2025), section 3.
    """

    importance: Importance = ColumnNorm()
    card = Card(
        name="wina",
        title="WINA: Weight Informed Neuron Activation for Accelerating Large Language Model "
        "Inference",
        authors="Chen et al.",
        year=2025,
        arxiv="2505.19427",
        summary="Drop inputs by their magnitude times the norm of the weights that they meet.",
    )
