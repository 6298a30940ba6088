"""TEAL: inputs below a threshold of magnitude, the same share of every block's weights."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from .levels import Greedy, Levels
from .recipe import ActivationRecipe


@dataclass(frozen=True)
class TEAL(ActivationRecipe, Catalogued):
    """Drop the inputs of every projection whose magnitude is below the projection's threshold.

    A threshold is the quantile of the magnitudes that calibration saw. How a block's sparsity is
    shared out among its projections is searched for block by block; ``levels="uniform"`` gives
    every projection the same.

    Parameters
    ----------
    importance, rule, levels, granularity, sparsity
        See :class:`~thresher.activate.recipe.ActivationRecipe`.

    Notes
    -----
    The authors evaluate with the first half of every text's tokens dense (their code says so), and
    calibrate on the dense model. Here every token's inputs are dropped, the first one's too, and a
    block is calibrated on what the sparse blocks before it leave.

    References
    ----------
    Liu et al., Training-Free Activation Sparsity in Large Language Models (2024), section 4.
    """

    levels: Levels = Greedy()
    card = Card(
        name="teal",
        title="Training-Free Activation Sparsity in Large Language Models",
        authors="Liu et al.",
        year=2024,
        arxiv="2408.14690",
        summary="Drop the inputs of each projection that are below a threshold of magnitude.",
    )
