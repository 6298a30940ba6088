"""Which inputs the engine drops: the thresholds of a model whose activations are sparse."""

from __future__ import annotations

__all__ = ["thresholds_of"]

import torch
from torch import Tensor, nn

from ...core.errors import LayerError, OptionError
from ...parts.activations.attached import INPUTS, attached
from ...parts.activations.selection import Threshold
from ..packed.linear import PackedLinear

_LINEAR = (nn.Linear, PackedLinear)
_REMEDY = "use the model's own generate(), in torch"


def thresholds_of(model: nn.Module, bits: int | None) -> dict[str, Tensor]:
    """Return below what size each input of a layer is dropped.

    Parameters
    ----------
    model : nn.Module
        Dense, or with selections.
    bits : {8, 4} or None
        Of its matrices in the engine.

    Returns
    -------
    dict of str to Tensor of shape (channels,), float32
        By the names of layers; none of a dense model.

    Raises
    ------
    OptionError
        If there are selections, and `bits` is not 4.
    LayerError
        If one is no threshold on the inputs of a layer within a block.
    """
    found = attached(model)
    if found and bits != 4:
        raise OptionError(
            "the engine drops inputs of weights in 4 bits alone, and this model drops some; use "
            f"bits=4 (--bits 4), or {_REMEDY}"
        )
    thresholds = {}
    for (name, side), selection in found.items():
        layer = model.get_submodule(name)
        if side != INPUTS or type(selection) is not Threshold or not isinstance(layer, _LINEAR):
            raise LayerError(
                f"the engine drops inputs of linear layers below thresholds, as 'teal' and 'wina' "
                f"set them, and layer {name!r} drops {side} by {selection.name!r}; {_REMEDY}"
            )
        threshold = selection.threshold.detach().float().cpu()
        thresholds[name] = torch.broadcast_to(threshold, (layer.in_features,))
    return thresholds
