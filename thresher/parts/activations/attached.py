"""Selections at layers: put there, found, counted, and taken away."""

from __future__ import annotations

__all__ = [
    "INPUTS",
    "OUTPUTS",
    "PRUNE_FIRST",
    "Tally",
    "attach",
    "attached",
    "check_none",
    "counting",
    "detach",
    "has_selection",
    "set_aside",
]

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from ...core.errors import LayerError
from .selection import RankSplit, Selection
from .window_blocks import choose_windows, release_windows
from .windows import Windows

#: Sides of a layer, and the names that a selection has as its child.
INPUTS, OUTPUTS = "inputs", "outputs"
#: What to do instead of changing weights that thresholds were calibrated for.
PRUNE_FIRST = "prune or heal the dense model first, and make its activations sparse last"
_CHILDREN = {INPUTS: "sparse_inputs", OUTPUTS: "sparse_outputs"}


def attach(name: str, layer: nn.Module, selection: Selection, side: str = INPUTS) -> None:
    """Have a layer multiply only what a selection keeps, or give only that.

    The selection becomes a child of the layer, so that its buffers are copied, moved and saved with
    the model's; weights keep their names. One that was there before is replaced.

    Parameters
    ----------
    name : str
        Path of the layer in its model.
    layer : nn.Module
        A module that is called with one tensor and returns one; a stage of blocks for a selection
        of windows.
    selection : Selection
        What to keep.
    side : {"inputs", "outputs"}
        Of the layer.
    """
    detach(layer, side)
    selection.place = f"{name}.{_CHILDREN[side]}"
    selection.training = layer.training
    layer.add_module(_CHILDREN[side], selection)
    # Plain functions, so that models can be copied and pickled.
    if side == OUTPUTS:
        layer.register_forward_hook(_select_outputs)
        return
    if isinstance(selection, Windows):
        layer.register_forward_pre_hook(choose_windows, with_kwargs=True)
        layer.register_forward_hook(release_windows, always_call=True)
        return
    layer.register_forward_pre_hook(_select_inputs, with_kwargs=True)
    if isinstance(selection, RankSplit):
        layer.register_forward_hook(_complete)


def attached(model: nn.Module) -> dict[tuple[str, str], Selection]:
    """Return the selections of a model by path of the layer and side, in the model's order."""
    return {
        (name, side): child
        for name, layer in model.named_modules()
        for side, attribute in _CHILDREN.items()
        if isinstance(child := layer._modules.get(attribute), Selection)
    }


def has_selection(layer: nn.Module, side: str) -> bool:
    """Return whether a layer's side has a selection."""
    return isinstance(layer._modules.get(_CHILDREN[side]), Selection)


def detach(layer: nn.Module, side: str) -> None:
    """Take the selection of a layer's side away, if there is one."""
    if not has_selection(layer, side):
        return
    del layer._modules[_CHILDREN[side]]
    of_inputs = (_select_inputs, _complete, choose_windows, release_windows)
    hooks: tuple[Any, ...] = of_inputs if side == INPUTS else (_select_outputs,)
    for table in (layer._forward_pre_hooks, layer._forward_hooks):
        for key in [key for key, hook in table.items() if hook in hooks]:
            del table[key]
            layer._forward_pre_hooks_with_kwargs.pop(key, None)
            layer._forward_hooks_always_called.pop(key, None)


@contextmanager
def set_aside(model: nn.Module) -> Iterator[dict[tuple[str, str], Selection]]:
    """Have a model without its selections, which is the dense one, while the context lasts."""
    found = attached(model)
    for name, side in found:
        detach(model.get_submodule(name), side)
    try:
        yield found
    finally:
        for (name, side), selection in found.items():
            attach(name, model.get_submodule(name), selection, side)


def check_none(model: nn.Module, remedy: str) -> None:
    """Raise if a model has selections.

    Raises
    ------
    LayerError
        Naming the first layer, and what to do.
    """
    found = attached(model)
    if found:
        name, side = next(iter(found))
        raise LayerError(
            f"layer {name!r} (and {len(found) - 1} more) drops {side} by activation sparsity; "
            f"{remedy}"
        )


@dataclass
class Tally:
    """How many entries came to a selection, and how many of them were or became zero.

    Tokens that only fill up a batch count as others do.
    """

    zeros: int = 0
    entries: int = 0

    @property
    def sparsity(self) -> float:
        """Share of entries that the product does without; NaN where none came."""
        return self.zeros / self.entries if self.entries else float("nan")


@contextmanager
def counting() -> Iterator[dict[str, Tally]]:
    """Count what selections keep, of whichever models run while the context lasts.

    Yields
    ------
    dict of str to Tally
        By the ``place`` of those that ran.
    """
    tallies: dict[str, Tally] = {}

    def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, Selection):
            with torch.no_grad():
                x = args[0].detach()
                idle = module.dropped(x) | (module.sizes(x) == 0)
            tally = tallies.setdefault(module.place, Tally())
            tally.zeros += int(idle.sum())
            tally.entries += idle.numel()

    handle = register_module_forward_hook(count)
    try:
        yield tallies
    finally:
        handle.remove()


def _select_inputs(
    layer: Any, args: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (layer.sparse_inputs(args[0]), *args[1:]), keywords
    name = next(iter(keywords))
    return args, {**keywords, name: layer.sparse_inputs(keywords[name])}


def _select_outputs(layer: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    selected: torch.Tensor = layer.sparse_outputs(output)
    return selected


def _complete(layer: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    completed: torch.Tensor = layer.sparse_inputs.completed(output)
    return completed
