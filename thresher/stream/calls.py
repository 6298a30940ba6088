"""Calls: putting something around a module's forward, however the model calls it."""

from __future__ import annotations

__all__ = ["Forward", "forward_within", "watching_calls"]

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

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
