"""Layers that make up for inputs which are about to be removed."""

from __future__ import annotations

__all__ = ["columns_that_stay", "made_up", "refit", "staying"]

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import torch

from ..parts.chooser import MaskChooser
from ..parts.groups.find import Group
from ..parts.layers import Layer
from ..parts.patterns import Unstructured
from ..parts.scores import Score
from ..parts.spreads import Removed
from ..parts.statistics import Statistics
from ..parts.updates import Update
from ..stream.stream import Stream
from .layerwise import UnitPruner
from .recipe import Recipe
from .record import LayerRecord
from .unit_recipe import UnitRecipe
from .unit_survey import labels_of


class _Staying(Score):
    """One where a weight stays and zero where it goes, as was decided before.

    Parameters
    ----------
    masks : mapping of str to Tensor of bool
        By layer.
    """

    by_columns = False

    def __init__(self, masks: Mapping[str, torch.Tensor]) -> None:
        self._masks = masks

    def __repr__(self) -> str:
        return "staying(...)"

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return the decision; see :class:`Score`."""
        return self._masks[statistics.name].to(weight)


def staying(masks: Mapping[str, torch.Tensor]) -> Score:
    """Return a score of decisions that were taken before, by layer."""
    return _Staying(masks)


def columns_that_stay(
    layers: Mapping[str, Sequence[Layer]], groups: Sequence[Group], removed: Removed
) -> dict[str, torch.Tensor]:
    """Return by layer which weights stay, of those that lose inputs."""
    masks: dict[str, torch.Tensor] = {}
    for group in groups:
        if not removed.get(group.name):
            continue
        # The last says that what belongs to no unit stays.
        keep = torch.ones(group.size + 1, dtype=torch.bool)
        keep[removed[group.name]] = False
        for member in group.consumers:
            for layer in layers.get(member.parameter, ()):
                stay = keep[labels_of(layer, member)]
                masks[layer.name] = masks.get(layer.name, torch.ones_like(stay)) & stay
    return masks


def made_up(
    layer: Layer, mask: torch.Tensor, update: Update, statistics: Statistics
) -> torch.Tensor:
    """Return what a layer's weight becomes without some columns, the others making up for them.

    Parameters
    ----------
    layer : Layer
        It stays as it is.
    mask : Tensor of bool, shape (..., rows, columns)
        Which weights stay.
    update : Update
    statistics : Statistics
        Of the layer's inputs, with the moments that the update needs.

    Returns
    -------
    Tensor
        Of the weight's own shape and dtype.
    """
    weight, masks = layer.matrix(), {layer.name: mask}
    shape, keep = tuple(weight.shape), int(mask.sum())
    choose = MaskChooser(staying(masks), Unstructured(), keep, statistics, shape)
    return layer.store(update(weight, choose, statistics)[0])


def refit(
    stream: Stream,
    recipe: UnitRecipe,
    masks: Mapping[str, torch.Tensor],
    stored: Mapping[str, torch.dtype],
    progress: Callable[[str], None],
) -> list[LayerRecord]:
    """Remove columns of layers, in place, the others making up for them as the recipe says.

    Parameters
    ----------
    stream : Stream
        Of the layers that lose inputs.
    recipe : UnitRecipe
    masks : mapping of str to Tensor of bool, shape (..., rows, columns)
        By layer, which weights stay.
    stored, progress
        See :class:`~thresher.prune.layerwise.UnitPruner`.
    """
    layers = [layer for unit in stream.units for layer in unit.layers]
    how = Recipe(staying(masks), Unstructured(), update=recipe.update, stages=recipe.stages)
    # Without data a layer stays as it is; what is removed of it goes all the same.
    pruner = UnitPruner(stream, layers, how, unseen="dense", stored=stored, progress=progress)
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    records = []
    with closing(stream.visits()) as visits:
        for visit in visits:
            records += pruner.prune(visit, counts)[1]
    return records
