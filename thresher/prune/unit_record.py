"""What is told of a model that became smaller."""

from __future__ import annotations

__all__ = ["layer_records", "shapes_before", "structure_of"]

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from ..parts.coverage import Coverage
from ..parts.groups.find import Coupled
from ..parts.groups.shrink import Setting
from ..parts.groups.sizes import as_data
from ..parts.spreads import Removed
from ..stream.units import find_units
from .record import LayerRecord
from .unit_search import Attention


def layer_records(
    model: nn.Module,
    small: nn.Module,
    coverage: Coverage,
    gone: Sequence[Attention],
    refitted: Sequence[LayerRecord],
) -> list[LayerRecord]:
    """Return what happened to the layers that have lost weights.

    Parameters
    ----------
    model, small : nn.Module
        Before and after.
    coverage : Coverage
        Of `model`.
    gone : sequence of Attention
        Of which all weights are zero.
    refitted : sequence of LayerRecord
        Of layers that made up for what they lost.
    """
    silent = {layer.name for attention in gone for layer in attention.layers}
    known = {record.name: record for record in refitted}
    units = enumerate(find_units(model, coverage.layers))
    blocks = {layer.name: index for index, unit in units for layer in unit.layers}
    records = []
    for layer in coverage.layers:
        now = small.get_parameter(layer.parameter)
        shape = list(getattr(layer.module, layer.attribute).shape)
        if layer.name not in silent and (layer.part is not None or list(now.shape) == shape):
            continue
        shape = list(layer.shape) if layer.part is not None else shape
        made = known.get(layer.name) or LayerRecord(layer.name, 0, shape, 0, 0.0, 0.0, {})
        kept = 0 if layer.name in silent else now.numel()
        made = dataclasses.replace(made, block=blocks[layer.name], shape=shape, kept=kept)
        records.append(made)
    return records


def shapes_before(dense: nn.Module, small: nn.Module) -> dict[str, list[int]]:
    """Return the shapes of all that a smaller module has cut, by name, as they were.

    Parameters
    ----------
    dense, small : nn.Module
    """
    held = small.state_dict()
    return {
        name: list(tensor.shape)
        for name, tensor in dense.state_dict().items()
        if tensor.shape != held[name].shape
    }


def structure_of(
    coupled: Coupled,
    parameters: Iterable[str],
    removed: Removed,
    gone: Sequence[Attention],
    settings: Sequence[Setting],
) -> dict[str, Any]:
    """Return what was removed, as a record has it.

    Parameters
    ----------
    coupled : Coupled
    parameters : iterable of str
        Of the layers whose weights are counted.
    removed : dict of str to list of int
        Units, by group.
    gone : sequence of Attention
        Of which all weights are zero.
    settings : sequence of Setting
        Numbers of modules that say sizes.
    """
    parameters = list(parameters)
    left = coupled.weights(parameters, removed) - sum(attention.weights for attention in gone)
    found: dict[str, Any] = {
        "removed": {name: [int(unit) for unit in units] for name, units in removed.items()},
        "weights": {"before": coupled.weights(parameters, {}), "after": left},
        "settings": as_data(settings),
    }
    return found | ({"silent": [attention.name for attention in gone]} if gone else {})
