"""CHESS: neurons by their gate times the mean of what it scales, and some inputs of attention."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts.activations.importance import Importance, PartnerMean
from .granularity import Granularity, NeuronsAndAttention
from .recipe import ActivationRecipe


@dataclass(frozen=True)
class CHESS(ActivationRecipe, Catalogued):
    """Drop neurons by a threshold of their own each, and small inputs of queries and outputs.

    What dropping a gate costs is about its magnitude times the mean magnitude of what it scales,
    so that one threshold on the product is one for every channel on the gate. In attention the
    inputs of the projections of queries and of outputs are dropped by magnitude.

    Parameters
    ----------
    importance, rule, levels, granularity, sparsity
        See :class:`~thresher.activate.recipe.ActivationRecipe`.

    Notes
    -----
    Projections of queries and outputs are recognised by what they act on, see
    :func:`~thresher.stream.reach.find_near_attention`. Where queries are fused with keys and
    values, the three stay dense. ``granularity=Neurons()`` leaves attention dense.

    References
    ----------
    He et al., CHESS: Optimizing LLM Inference via Channel-Wise Thresholding and Selective
    Sparsification (2024), section 3.
    """

    importance: Importance = PartnerMean()
    granularity: Granularity = NeuronsAndAttention()
    card = Card(
        name="chess",
        title="CHESS: Optimizing LLM Inference via Channel-Wise Thresholding and Selective "
        "Sparsification",
        authors="He et al.",
        year=2024,
        arxiv="2409.01366",
        summary="Drop neurons by gate times the mean of what it scales, and inputs of attention.",
    )
