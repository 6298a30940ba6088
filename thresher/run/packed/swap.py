"""Putting a packed layer where a dense one was, wherever the model holds it."""

from __future__ import annotations

__all__ = ["swap"]

from typing import Any

from torch import nn

#: What a module holds its parts in, which ``set_submodule`` knows.
_REGISTERED = ("_modules", "_parameters", "_buffers")


def swap(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Replace a submodule, in plain lists, tuples, dicts and attributes too.

    Some models call their layers through a Python list that they keep beside the modules; the
    replaced layer would go on living there, and after loading it has no weights.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    name : str
        Path of the submodule.
    layer : nn.Module
        What takes its place.
    """
    before = model.get_submodule(name)
    model.set_submodule(name, layer)
    for module in model.modules():
        for key, value in list(vars(module).items()):
            if key in _REGISTERED:
                continue
            found = _replaced(value, before, layer)
            if found is not value:
                vars(module)[key] = found


def _replaced(value: Any, before: nn.Module, after: nn.Module) -> Any:
    """Return a value with one object for another: lists and dicts themselves, changed in place."""
    if value is before:
        return after
    if type(value) is list:
        value[:] = [_replaced(each, before, after) for each in value]
    elif type(value) is dict:
        value |= {key: _replaced(each, before, after) for key, each in value.items()}
    elif type(value) is tuple:
        made = tuple(_replaced(each, before, after) for each in value)
        if any(a is not b for a, b in zip(made, value, strict=True)):
            return made
    return value
