"""Calls: putting something around a module's forward, however the model calls it."""

from __future__ import annotations

__all__ = ["Forward", "forward_within", "input_of", "version_of", "watching_calls"]

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..core.errors import DataError
from ..parts.layers import Layer

Forward = Callable[..., Any]


@contextmanager
def forward_within(module: nn.Module, wrap: Callable[[Forward], Forward]) -> Iterator[None]:
    """Have ``wrap(forward)`` run in the place of a module's forward while the context lasts.

    Hooks would miss the calls of models that write ``block.forward(x)``.
    """
    before = module.__dict__.get("forward")
    module.forward = wrap(module.forward)
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.forward = before


@contextmanager
def watching_calls(
    layers: Sequence[Layer], note: Callable[[Layer, tuple[Any, ...], dict[str, Any]], None]
) -> Iterator[None]:
    """Call ``note(layer, args, keywords)`` before a module that uses a layer, in the context."""

    def noting(layer: Layer) -> Callable[..., None]:
        return lambda module, args, keywords: note(layer, args, keywords)

    handles = [
        user.register_forward_pre_hook(noting(layer), with_kwargs=True)
        for layer in layers
        for user in layer.users
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def input_of(layer: Layer, args: tuple[Any, ...], keywords: dict[str, Any]) -> torch.Tensor:
    """Return what a layer multiplies: the one tensor that it is called with."""
    given = [each for each in (*args, *keywords.values()) if isinstance(each, torch.Tensor)]
    if not given:
        raise DataError(f"layer {layer.name!r} was called without a tensor")
    if given[0].is_nested:
        # Rows of several lengths, which lie one after another.
        return torch.cat([each.flatten(0, -2) for each in given[0].unbind()])
    return given[0]


def version_of(x: torch.Tensor) -> int:
    """Return how often a tensor was changed in place."""
    return 0 if x.is_inference() else x._version
