"""Units: the modules of a model that are calibrated and changed one after another."""

from __future__ import annotations

__all__ = ["Unit", "find_units"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ..parts.layers import Layer


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

    @property
    def is_shared(self) -> bool:
        """Whether a module outside the unit uses one of its weights too."""
        inside = {id(module) for module in self.module.modules()}
        return any(id(user) not in inside for layer in self.layers for user in layer.users)


def find_units(model: nn.Module, layers: Sequence[Layer]) -> list[Unit]:
    """Part a model's layers into units, in the model's own order.

    The children of a list of blocks (``ModuleList``, ``Sequential``, ``ModuleDict``) are units:
    first those of the list that holds the most weights, then of the next that lies apart from
    it, and so on: an encoder's and a decoder's, a vision tower's and a language model's. A list
    of which one child holds most of the weights, and lists of its own, gives way to those. What
    lies in no list is a unit by itself.

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


def _block_names(modules: dict[str, nn.Module], layers: Sequence[Layer]) -> list[str]:
    """Return the paths of blocks, none of which lies in another."""
    weights = [(_path(layer), layer.weight.numel()) for layer in layers]

    def held(name: str) -> int:
        return sum(count for path, count in weights if _is_within(path, name))

    lists = {n: held(n) for n, m in modules.items() if _is_list(m) and len(m) > 0}
    # Of equals the outermost, which named_modules yields first.
    order = sorted((n for n in lists if lists[n]), key=lambda n: -lists[n])
    blocks: list[str] = []
    taken: list[str] = []
    for name in order:
        if any(_is_within(name, t) or _is_within(t, name) for t in taken):
            continue
        chosen = _refined(name, modules, lists, held)
        taken.append(chosen)
        blocks += [child for child in _callable_children(chosen, modules) if held(child)]
    return blocks


def _refined(name: str, modules: dict[str, nn.Module], lists: dict[str, int], held) -> str:  # type: ignore[no-untyped-def]
    """Go down from a list to the one inside the child that holds most of its weights."""
    heavy = [c for c in _callable_children(name, modules) if 2 * held(c) > lists[name]]
    inside = [n for n in lists if heavy and n != name and _is_within(n, heavy[0]) and lists[n]]
    if len(modules[name]) < 2 or not inside:  # type: ignore[arg-type]
        return name
    largest = max(inside, key=lambda n: lists[n])
    return _refined(largest, modules, lists, held) if 2 * lists[largest] > lists[name] else name


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.Sequential | nn.ModuleDict)


def _callable_children(name: str, modules: dict[str, nn.Module]) -> Iterator[str]:
    """Yield a list's children; those of children that are bare lists, which nobody calls."""
    for child, module in modules[name].named_children():
        path = f"{name}.{child}".strip(".")
        if isinstance(module, nn.ModuleList | nn.ModuleDict):
            yield from _callable_children(path, modules)
        else:
            yield path
