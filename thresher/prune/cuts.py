"""Pruning one layer from what is known of its inputs."""

from __future__ import annotations

__all__ = ["Cut", "cut_layer", "merge_masks", "prune_layer"]

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..core.errors import NumericalError
from ..parts.chooser import MaskChooser
from ..parts.layers import Layer
from ..parts.statistics import Statistics
from .recipe import Recipe
from .record import LayerRecord

_HISTOGRAM_BINS = 60


@torch.no_grad()
def prune_layer(
    layer: Layer,
    block: int,
    recipe: Recipe,
    statistics: Statistics,
    keep: int,
    stored: torch.dtype | None = None,
    found: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, LayerRecord]:
    """Prune one layer in place.

    Parameters
    ----------
    layer : Layer
        Its weight is overwritten.
    block : int
        Index of its unit, for the record.
    recipe : Recipe
        How to choose and update.
    statistics : Statistics
        Of the layer's inputs.
    keep : int
        Weights to keep.
    stored : torch.dtype, optional
        What the weight will be stored in, where that is shorter than what it is held in; by
        default what it is held in.
    found : tuple of Tensor, optional
        Weight and mask, where they are known already; by default the recipe's update finds them.

    Returns
    -------
    mask : Tensor of bool
        In the weight's own shape.
    record : LayerRecord

    Raises
    ------
    NumericalError
        If the weight is not finite before or after; it is then left as it was.
    """
    start = time.perf_counter()
    dense = layer.matrix()
    pruned, mask, rounded = cut_layer(layer, dense, recipe, statistics, keep, stored, found)
    support = layer.store(mask).bool()
    record = LayerRecord(
        name=layer.name,
        block=block,
        shape=list(layer.weight.shape),
        kept=int(mask.sum()),
        error=_relative_error(dense, layer.matrix(rounded), statistics.sample),
        seconds=0.0,
        histogram=_histogram(dense, pruned, mask),
        zeros=int((support & (rounded == 0)).sum()),
        revived=int(((dense == 0) & (layer.matrix(rounded) != 0)).sum()),
    )
    layer.overwrite(rounded)
    record.seconds = time.perf_counter() - start
    return support, record


@torch.no_grad()
def cut_layer(
    layer: Layer,
    dense: torch.Tensor,
    recipe: Recipe,
    statistics: Statistics,
    keep: int,
    stored: torch.dtype | None,
    found: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find what a layer becomes, and leave it as it is.

    Parameters
    ----------
    layer : Layer
        What to prune.
    dense : Tensor of shape (..., rows, columns)
        The layer's matrix.
    recipe, statistics, keep, stored, found
        See :func:`prune_layer`.

    Returns
    -------
    pruned : Tensor of shape (..., rows, columns)
        In float32.
    mask : Tensor of bool, same shape
    rounded : Tensor
        What is to be stored, in the weight's own shape.

    Raises
    ------
    NumericalError
        If the weight is not finite before or after.
    """
    layer.check_finite()
    if found is None:
        choose = MaskChooser(recipe.score, recipe.pattern, keep, statistics, tuple(dense.shape))
        found = recipe.update(dense, choose, statistics)
    pruned, mask = found
    if not bool(torch.isfinite(pruned).all()):
        raise NumericalError(
            f"the update of layer {layer.name!r} gave NaN or infinite weights; raise its damping"
        )
    rounded = _rounded(layer, pruned, stored or layer.weight.dtype)
    if layer.weight.dtype == torch.float64:
        # The matrix is of float32; a weight that only stays keeps all of its digits.
        same = layer.form.store(mask & (pruned == dense), tuple(layer.weight.shape))
        rounded = torch.where(same, layer.weight.to(rounded.dtype), rounded)
    return pruned, mask, rounded


def _rounded(layer: Layer, pruned: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a matrix in the layer's shape and the dtype to store, within what that can hold."""
    largest = torch.finfo(dtype).max
    beyond = int((pruned.abs() > largest).sum())
    if beyond:
        warnings.warn(
            f"the update of layer {layer.name!r} gave {beyond} weights beyond the {largest:g} of "
            f"{dtype}, which were set to that; convert the model to bfloat16 to keep them",
            stacklevel=2,
        )
        pruned = pruned.clamp(-largest, largest)
    return layer.form.store(pruned, tuple(layer.weight.shape)).to(dtype).contiguous()


def _relative_error(
    dense: torch.Tensor, pruned: torch.Tensor, sample: torch.Tensor | None
) -> float:
    change, whole = dense - pruned, dense
    if sample is not None:
        change, whole = sample @ change.mT, sample @ whole.mT
    scale = float(whole.square().sum())
    return float(change.square().sum()) / scale if scale else 0.0


def _histogram(
    dense: torch.Tensor, pruned: torch.Tensor, mask: torch.Tensor
) -> dict[str, list[float]]:
    limit = max(4 * float(dense.std(correction=0)), 1e-12)
    edges = torch.linspace(-limit, limit, _HISTOGRAM_BINS + 1)

    def count(values: torch.Tensor) -> list[float]:
        inside = values.clamp(-limit, limit).cpu()
        return torch.histc(inside, _HISTOGRAM_BINS, -limit, limit).int().tolist()

    return {"edges": edges.tolist(), "dense": count(dense), "pruned": count(pruned[mask])}


def merge_masks(
    layers: Sequence[Layer], masks: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return masks by parameter, put together from those of its parts.

    Parameters
    ----------
    layers : sequence of Layer
        The layers that `masks` are of.
    masks : mapping of str to Tensor of bool
        By layer name, in the layers' own shapes.
    """
    merged: dict[str, torch.Tensor] = {}
    for layer in layers:
        if layer.part is None:
            merged[layer.parameter] = masks[layer.name]
            continue
        shape = getattr(layer.module, layer.attribute).shape
        # A part that is not pruned keeps everything.
        whole = merged.setdefault(layer.parameter, torch.ones(shape, dtype=torch.bool))
        layer.part_of(whole).copy_(masks[layer.name])
    return merged


@dataclass
class Cut:
    """Another cut than the one that a unit is left with.

    Parameters
    ----------
    counts : mapping of str to int
        Weights to keep, by layer.
    found : dict of str to (Tensor, Tensor)
        Weights and masks of layers that were pruned together, see :meth:`Recipe.together`.
    weights, masks : dict of str to Tensor
        Of the layers of the unit that was pruned last.
    """

    counts: Mapping[str, int]
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    masks: dict[str, torch.Tensor] = field(default_factory=dict)

    def clear(self) -> None:
        """Let go of a unit's weights and masks."""
        self.found.clear()
        self.weights.clear()
        self.masks.clear()

    def apply(self, layers: Sequence[Layer]) -> dict[str, torch.Tensor]:
        """Give a unit's layers this cut's weights; return its masks, by parameter."""
        for layer in layers:
            layer.overwrite(self.weights[layer.name])
        return merge_masks(layers, self.masks)
