"""Putting packed layers where dense ones were, wherever the model holds them."""

from __future__ import annotations

__all__ = ["swap"]

from collections.abc import Mapping
from typing import Any

from torch import nn

#: What a module holds its parts in, which ``set_submodule`` knows.
_REGISTERED = ("_modules", "_parameters", "_buffers")


def swap(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Replace submodules, in plain lists, tuples, dicts and attributes too.

    Some models call their layers through a Python list that they keep beside the modules; the
    replaced layers would go on living there, and after loading they have no weights.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    layers : Mapping[str, nn.Module]
        What takes the place of the submodules, by their paths.
    """
    # The old layers are held, so that no other object takes one's identity.
    places = {id(old): (old, layers[path]) for path in layers if (old := model.get_submodule(path))}
    for path, layer in layers.items():
        model.set_submodule(path, layer)
    # One walk for all: there are as many modules as layers.
    for module in model.modules():
        for key, value in list(vars(module).items()):
            if key in _REGISTERED:
                continue
            found = _replaced(value, places)
            if found is not value:
                vars(module)[key] = found


def _replaced(value: Any, places: Mapping[int, tuple[nn.Module, nn.Module]]) -> Any:
    """Return a value with objects replaced: lists and dicts themselves, changed in place."""
    if id(value) in places:
        return places[id(value)][1]
    if type(value) is list:
        value[:] = [_replaced(each, places) for each in value]
    elif type(value) is dict:
        value |= {key: _replaced(each, places) for key, each in value.items()}
    elif type(value) is tuple:
        made = tuple(_replaced(each, places) for each in value)
        if any(a is not b for a, b in zip(made, value, strict=True)):
            return made
    return value
