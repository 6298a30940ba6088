"""Layouts by number: what the operators that stand in a graph of tensors can be given."""

from __future__ import annotations

__all__ = ["held", "hold", "in_graph"]

import itertools
import secrets
import weakref
from typing import Any

import torch

from ...core.errors import LayerError

# From a random number on, so that a graph that was stored finds no layout of another process.
_NUMBERS = itertools.count(secrets.randbits(61))
_HELD: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def hold(layout: Any) -> int:
    """Return the number under which :func:`held` finds a layout for as long as it lives."""
    number = next(_NUMBERS)
    _HELD[number] = layout
    return number


def held(number: int) -> Any:
    """Return the layout of a number.

    Raises
    ------
    LayerError
        If it is gone, or was of another process.
    """
    layout = _HELD.get(number)
    if layout is None:
        raise LayerError(
            "a compiled or traced graph multiplies a packed weight that is not in this process: "
            "keep the packed model as long as its graphs; to take a graph elsewhere, trace or "
            "export the dense model, before it is packed"
        )
    return layout


def in_graph() -> bool:
    """Return whether operators are being recorded, by torch.compile, export or torch.jit.trace."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
