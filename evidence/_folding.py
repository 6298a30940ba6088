"""Fewer passes over images: batch norms, padding and activations join convolutions.

What networks are given before sparse and dense convolutions are timed beside each other.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from thresher.run.packed.conv import PackedConv2d


def fold_convolutions(model: nn.Module) -> nn.Module:
    """Fold batch norms and padding into the dense convolutions that they follow and precede.

    Only layers that follow each other in ``nn.Sequential`` (nested ones too) are folded, and
    only what leaves outputs the same up to rounding: batch norms in evaluation mode, and
    ``nn.ZeroPad2d`` of as much before as after. Do this before :func:`thresher.run.pack`.
    The model then has other parameters than its class builds, so a state dict of it loads into a
    model that was folded too, and ``from_pretrained`` cannot rebuild it.

    Parameters
    ----------
    model : nn.Module
        Changed in place; what was folded becomes ``nn.Identity``.

    Returns
    -------
    nn.Module
        `model`.
    """
    for chain in _chains(model):
        for first, second in itertools.pairwise(chain):
            before, after = first.module, second.module
            if type(before) is nn.Conv2d and type(after) is nn.BatchNorm2d and not after.training:
                first.module = nn.utils.fuse_conv_bn_eval(before, after)
                second.module = nn.Identity()
            elif type(before) is nn.ZeroPad2d and type(after) is nn.Conv2d:
                padded = _padded(before, after)
                if padded is not None:
                    first.module, second.module = nn.Identity(), padded
    return model


def fuse_activations(model: nn.Module) -> nn.Module:
    """Let packed convolutions apply the ReLU or ReLU6 that follows them in ``nn.Sequential``.

    Parameters
    ----------
    model : nn.Module
        Changed in place, after :func:`thresher.run.pack`; the activations become
        ``nn.Identity``.

    Returns
    -------
    nn.Module
        `model`.
    """
    for chain in _chains(model):
        working = [place for place in chain if type(place.module) is not nn.Identity]
        for first, second in itertools.pairwise(working):
            conv, activation = first.module, second.module
            if not isinstance(conv, PackedConv2d):
                continue
            if type(activation) is nn.ReLU:
                conv.low = max(conv.low, 0.0)
            elif type(activation) is nn.ReLU6:
                conv.low, conv.high = max(conv.low, 0.0), min(conv.high, 6.0)
            else:
                continue
            second.module = nn.Identity()
    return model


@dataclass
class _Place:
    """Where in a container a layer is; setting `module` replaces it."""

    container: nn.Sequential
    name: str

    @property
    def module(self) -> nn.Module:
        return self.container._modules[self.name]  # type: ignore[return-value]

    @module.setter
    def module(self, module: nn.Module) -> None:
        self.container._modules[self.name] = module


def _is_chain(module: nn.Module) -> bool:
    """Whether a module runs its children one after another and nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _leaves(container: nn.Module) -> Iterator[_Place]:
    assert isinstance(container, nn.Sequential)
    for name, child in list(container._modules.items()):
        if child is not None and _is_chain(child):
            yield from _leaves(child)
        else:
            yield _Place(container, name)


def _chains(model: nn.Module) -> Iterator[list[_Place]]:
    """Yield the layers of every outermost chain, in order."""
    inner = {
        id(child)
        for module in model.modules()
        if _is_chain(module)
        for child in module.children()
        if _is_chain(child)
    }
    for module in list(model.modules()):
        if _is_chain(module) and id(module) not in inner:
            yield list(_leaves(module))


def _padded(pad: nn.ZeroPad2d, conv: nn.Conv2d) -> nn.Conv2d | None:
    """Return a convolution with the padding that precedes it, or None where it cannot take it."""
    left, right, top, bottom = pad.padding
    if left != right or top != bottom or conv.padding_mode != "zeros":
        return None
    if isinstance(conv.padding, str):
        return None
    padded = copy.deepcopy(conv)
    rows, columns = conv.padding[0] + top, conv.padding[1] + left
    padded.padding = (rows, columns)
    padded._reversed_padding_repeated_twice = [columns, columns, rows, rows]
    return padded
