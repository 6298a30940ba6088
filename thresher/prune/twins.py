"""Twins: a population of models beside what is left of each when it is sparse."""

from __future__ import annotations

__all__ = ["Twins", "compare_twins"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import spearmanr
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import DataError
from ..stream.passes import calibrating


@dataclass(frozen=True)
class Twins(Catalogued):
    """How sparse models stand to the dense ones that they were, over a population.

    Parameters
    ----------
    dense_accuracy, sparse_accuracy : tuple of float
        Shares of samples that each model classifies rightly, pair by pair.
    agreement : tuple of float
        Shares of samples that both models of a pair put into the same class.

    References
    ----------
    Honegger et al., Sparsified Model Zoo Twins (2023), for what is compared.

    Examples
    --------
    >>> Twins((0.9, 0.8, 0.7), (0.8, 0.7, 0.6), (0.9, 0.9, 0.8)).correlation
    1.0
    """

    card = Card(
        name="model-zoo-twins",
        title="Sparsified Model Zoo Twins: Investigating Populations of Sparsified Neural Network "
        "Models",
        authors="Dominik Honegger, Konstantin Schürholt, Damian Borth",
        year=2023,
        arxiv="2304.13718",
        summary="Agreement and rank correlation of sparse models with the dense ones they were.",
    )

    dense_accuracy: tuple[float, ...]
    sparse_accuracy: tuple[float, ...]
    agreement: tuple[float, ...]

    @property
    def correlation(self) -> float:
        """Rank correlation of both accuracies over the population; NaN where one is the same."""
        pairs = (self.dense_accuracy, self.sparse_accuracy)
        if any(len(set(each)) < 2 for each in pairs):
            return float("nan")
        return round(float(spearmanr(*pairs)[0]), 12)


@torch.no_grad()
def compare_twins(
    dense: Sequence[nn.Module],
    sparse: Sequence[nn.Module],
    inputs: torch.Tensor,
    labels: torch.Tensor,
) -> Twins:
    """Compare classifiers with their sparse twins.

    Parameters
    ----------
    dense, sparse : sequence of nn.Module
        In the same order; each maps `inputs` to logits of shape (samples, classes).
    inputs : Tensor of shape (samples, ...)
        What all of them are given.
    labels : Tensor of int, shape (samples,)
        The right classes.

    Returns
    -------
    Twins

    Raises
    ------
    DataError
        If there are not as many of one as of the other, no models, or no samples.
    """
    if not dense or len(dense) != len(sparse):
        raise DataError(
            f"there are {len(dense)} dense and {len(sparse)} sparse models; pass as many of both, "
            "and at least one"
        )
    if not len(inputs) or len(inputs) != len(labels):
        raise DataError(f"there are {len(inputs)} inputs and {len(labels)} labels to compare on")
    found = []
    for pair in zip(dense, sparse, strict=True):
        classes = [_classes(model, inputs) for model in pair]
        found.append(
            [
                float((one == other).double().mean())
                for one, other in ((classes[0], labels), (classes[1], labels), classes)
            ]
        )
    first, second, both = zip(*found, strict=True)
    return Twins(first, second, both)


def _classes(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    with calibrating(model):
        logits: torch.Tensor = model(inputs)
    return logits.argmax(-1)
