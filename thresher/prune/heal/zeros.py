"""Where a model has the zeros that pruning left."""

from __future__ import annotations

__all__ = ["Place", "pruned_places"]

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from ...core.errors import LayerError
from ...core.remembered import remembered
from ...parts.coverage import cover
from ...run.packed.layer import PackedLayer
from ..record import PruneRecord

#: Fewer zeros than this share come about by rounding, and are in dense models too.
_FEW = 1e-3


@dataclass(frozen=True)
class Place:
    """Where a parameter is in a model.

    Parameters
    ----------
    name : str
        Its path.
    module : nn.Module
        What holds it.
    attribute : str
        Its name there.
    """

    name: str
    module: nn.Module
    attribute: str

    @property
    def tensor(self) -> nn.Parameter:
        """The parameter that is there now."""
        found = getattr(self.module, self.attribute)
        assert isinstance(found, nn.Parameter)
        return found


def pruned_places(model: nn.Module) -> list[Place]:
    """Return the places of all parameters that pruning left zeros in.

    Those are the layers of the record that :func:`thresher.prune` left on the model, or on what
    it wraps, and every layer that pruning would cover and that holds a zero. A weight of zeros
    alone which no record names was made so, such as the start of an adapter, and is not pruned.

    Parameters
    ----------
    model : nn.Module
        Any module, wrapped or not.

    Raises
    ------
    LayerError
        If there are none, or a layer's weight is packed.
    """
    packed = [name for name, m in model.named_modules() if isinstance(m, PackedLayer)]
    if packed:
        raise LayerError(
            f"layer {packed[0]!r} (and {len(packed) - 1} more) holds a packed weight, which is not "
            "trained; load the folder with dense layers: "
            'config.quantization_config["packed"] = False, or `thresher export` it first'
        )
    found = {id(place.tensor): place for place in _recorded(model)}
    for place in _covered(model):
        if bool(place.tensor.any()):
            found.setdefault(id(place.tensor), place)
    zeros = {key: int((place.tensor == 0).sum()) for key, place in found.items()}
    if sum(zeros.values()) < max(1, _FEW * sum(p.tensor.numel() for p in found.values())):
        raise LayerError(
            f"{type(model).__name__} has no pruned weights: {sum(zeros.values())} zeros in "
            f"{len(found)} layers; prune it first, with thresher.prune(model, ...)"
        )
    return [place for key, place in found.items() if zeros[key]]


def _recorded(model: nn.Module) -> Iterator[Place]:
    """Yield the layers of the record of a model, or of a module in it."""
    for base in model.modules():
        record = remembered(base)
        if not isinstance(record, PruneRecord):
            continue
        modules = dict(base.named_modules(remove_duplicate=False))
        names = {id(m): name for name, m in model.named_modules()}
        for layer in record.layers:
            # Experts and projections of one parameter have their number in brackets.
            whole = layer.name.partition("[")[0]
            path, _, leaf = whole.rpartition(".")
            for module, attribute in ((modules.get(whole), "weight"), (modules.get(path), leaf)):
                held = None if module is None else module._parameters.get(attribute)
                if module is not None and held is not None:
                    yield Place(f"{names[id(module)]}.{attribute}".strip("."), module, attribute)


def _covered(model: nn.Module) -> Iterator[Place]:
    try:
        layers = cover(model).layers
    except LayerError:
        # Such as a model whose only pruned layer is its output head.
        return
    for layer in layers:
        if isinstance(layer.module._parameters.get(layer.attribute), torch.Tensor):
            yield Place(layer.parameter, layer.module, layer.attribute)
