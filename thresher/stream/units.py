"""Units: the modules of a model that are calibrated and changed one after another."""

from __future__ import annotations

__all__ = ["Unit", "find_units", "parts_of", "sharing_units"]

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ..parts.layers import Layer

#: Share of a list's weights from which on one child of it is the whole model in a wrapper.
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Unit:
    """A module whose layers see the same state of the model before them.

    Parameters
    ----------
    name : str
        Its path in the model.
    module : nn.Module
        A block of a list of blocks, or the module of a layer that is in no such list.
    layers : tuple of Layer
        The layers that belong to it.
    """

    name: str
    module: nn.Module
    layers: tuple[Layer, ...]


def parts_of(units: Sequence[Unit]) -> Iterator[nn.Module]:
    """Yield the modules that units are or hold."""
    for unit in units:
        yield from unit.module.modules()


def sharing_units(units: Sequence[Unit]) -> set[str]:
    """Return the names of units with a weight that is used outside them or in another one too.

    Two modules may share a parameter, and two blocks may hold the very same module.
    """
    holders = Counter(id(module) for unit in units for module in unit.module.modules())
    sharing = set()
    for unit in units:
        inside = {id(module) for module in unit.module.modules()}
        users = {id(m) for layer in unit.layers for m in (*layer.users, *layer.readers)}
        if not users <= inside or any(holders[user] > 1 for user in users):
            sharing.add(unit.name)
    return sharing


def find_units(model: nn.Module, layers: Sequence[Layer]) -> list[Unit]:
    """Part a model's layers into units, in the model's own order.

    The children of a list of modules (``ModuleList``, ``Sequential``, ``ModuleDict``) that lies
    in no other list are units: an encoder's blocks and a decoder's, a vision tower's and a
    language model's. A list of which one child is nearly all, as where a model is wrapped in a
    ``Sequential``, gives way to the lists in that child. What lies in no list is a unit by
    itself.

    Parameters
    ----------
    model : nn.Module
        Any module.
    layers : sequence of Layer
        Those to part.

    Returns
    -------
    list of Unit
        Every layer is in exactly one.
    """
    owners: dict[str, tuple[nn.Module, list[Layer]]] = {}
    modules = dict(model.named_modules())
    blocks = _block_names(modules, layers)
    for layer in layers:
        path = _path(layer)
        name = next((b for b in blocks if _is_within(path, b)), None)
        if name is None:
            name = path
            parent = modules.get(path.rpartition(".")[0])
            # It hands its output projection's weight to a function instead of calling it.
            if isinstance(parent, nn.MultiheadAttention):
                name = path.rpartition(".")[0]
        owners.setdefault(name, (modules[name], []))[1].append(layer)
    return [Unit(name, module, tuple(found)) for name, (module, found) in owners.items()]


def _path(layer: Layer) -> str:
    """Return the path of the module that holds a layer's parameter."""
    return layer.parameter.rpartition(".")[0]


def _is_within(path: str, block: str) -> bool:
    return f"{path}.".startswith(f"{block}.") if block else True


def _block_names(modules: Mapping[str, nn.Module], layers: Sequence[Layer]) -> list[str]:
    """Return the paths of blocks, none of which lies in another."""
    weights = [(_path(layer), layer.weight.numel()) for layer in layers]

    def held(name: str) -> int:
        return sum(count for path, count in weights if _is_within(path, name))

    blocks: list[str] = []
    taken: list[str] = []
    # A module comes before what it holds.
    for name, module in modules.items():
        if not _is_list(module) or any(_is_within(name, t) for t in taken):
            continue
        children = list(_callable_children(name, modules))
        if _holds_a_list(modules, [c for c in children if held(c) > _NEARLY_ALL * held(name)]):
            continue
        taken.append(name)
        blocks += [child for child in children if held(child)]
    return blocks


def _holds_a_list(modules: Mapping[str, nn.Module], children: Sequence[str]) -> bool:
    return any(
        _is_list(module) and _is_within(name, child)
        for child in children
        for name, module in modules.items()
    )


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.Sequential | nn.ModuleDict)


def _callable_children(name: str, modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """Yield a list's children; those of children that are bare lists, which nobody calls."""
    for child, module in modules[name].named_children():
        path = f"{name}.{child}".strip(".")
        if isinstance(module, nn.ModuleList | nn.ModuleDict):
            yield from _callable_children(path, modules)
        else:
            yield path
