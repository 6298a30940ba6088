"""A bound on how well a pruned classifier generalises, from how few numbers describe it."""

from __future__ import annotations

__all__ = ["PruningBound", "pruning_bound"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import DataError, OptionError
from ..parts.coverage import find_layers
from ..parts.layers import Layer
from ..stream.passes import calibrating


@dataclass(frozen=True)
class PruningBound(Catalogued):
    """What a pruned classifier's error on new data is at most, with a given confidence.

    Parameters
    ----------
    margin : float
        By how much pruning moves one logit from another, on the samples at most.
    margin_error : float
        Share of the samples that the dense model does not classify rightly by more than that.
    parameters : int
        Numbers in sketches from which the pruned layers can be recovered.
    complexity : float
        What is added for them.

    References
    ----------
    Guha, Dubey and Huo, Generalization Bounds for Magnitude-Based Pruning via Sparse Matrix
    Sketching (2023). After its abstract: the paper's constants were not at hand, and are 1 here.
    """

    card = Card(
        name="pruning-bound",
        title="Generalization Bounds for Magnitude-Based Pruning via Sparse Matrix Sketching",
        authors="Etash Kumar Guha, Prasanjit Dubey, Xiaoming Huo",
        year=2023,
        arxiv="2305.18789",
        summary="Bound a pruned network's error by how few numbers its sketched layers have.",
    )

    margin: float
    margin_error: float
    parameters: int
    complexity: float

    @property
    def error(self) -> float:
        """The bound; 1 and above say nothing."""
        return self.margin_error + self.complexity


@torch.no_grad()
def pruning_bound(
    dense: nn.Module,
    pruned: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    values: int = 256,
    confidence: float = 0.95,
) -> PruningBound:
    """Bound the error of a pruned classifier on data like its training data.

    Parameters
    ----------
    dense, pruned : nn.Module
        The same network before and after; each maps `inputs` to logits of shape (samples, classes).
    inputs : Tensor of shape (samples, ...)
        What the dense model was trained on.
    labels : Tensor of int, shape (samples,)
        The right classes.
    values : int, default 256
        How many values each number of a sketch may take.
    confidence : float, default 0.95
        With which the bound holds, in (0, 1).

    Returns
    -------
    PruningBound

    Raises
    ------
    OptionError
        If an option is out of range.
    DataError
        If there are no samples, or not as many labels.

    Notes
    -----
    A class of ``r^q`` networks holds one whose error on m samples is off by no more than
    ``sqrt((q log r + log 1 / (1 - confidence)) / 2m)``. A layer of p inputs and outputs with at
    most j weights in a row or column is recovered from a sketch of ``sqrt(j p) log p`` on each
    side, so that q is the sum of their sizes, or of the layers' where those are smaller.
    """
    if values < 2 or not 0 < confidence < 1:
        raise OptionError(
            f"values {values} must be at least 2, and confidence {confidence} between 0 and 1"
        )
    if not len(inputs) or len(inputs) != len(labels):
        raise DataError(f"there are {len(inputs)} inputs and {len(labels)} labels; pass as many")
    with calibrating(dense), calibrating(pruned):
        before, after = dense(inputs).double(), pruned(inputs).double()
    change = after - before
    margin = float((change.amax(-1) - change.amin(-1)).max())
    right = before.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    others = before.scatter(-1, labels.unsqueeze(-1), -math.inf).amax(-1)
    parameters = sketch_size(find_layers(pruned))
    spread = parameters * math.log(values) - math.log(1 - confidence)
    return PruningBound(
        margin,
        float((right - others <= margin).double().mean()),
        parameters,
        math.sqrt(spread / (2 * len(inputs))),
    )


def sketch_size(layers: Sequence[Layer]) -> int:
    """Return how many numbers the sketches of some layers have, with constants of 1.

    Parameters
    ----------
    layers : sequence of Layer
        Each counts for at most its own entries.
    """
    return sum(_size(matrix) for layer in layers for matrix in _matrices(layer))


def _matrices(layer: Layer) -> torch.Tensor:
    matrix = layer.matrix()
    return matrix.reshape(-1, *matrix.shape[-2:])


def _size(matrix: torch.Tensor) -> int:
    kept = matrix != 0
    fullest = max(int(kept.sum(axis).max()) for axis in (0, 1))
    sides = [math.ceil(math.sqrt(fullest * n) * math.log(n)) if n > 1 else 1 for n in matrix.shape]
    return min(matrix.numel(), math.prod(sides))
