"""How a model uses its weights: what a sample's pass shows before anything is calibrated."""

from __future__ import annotations

__all__ = ["as_used", "find_uses", "is_multiplied"]

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from ..parts.coverage import Coverage
from ..parts.forms import Columns, Rows
from ..parts.layers import Layer
from .hooks import Registered
from .passes import HeadReachedError, calibrating, ending_before_the_head
from .products import watching_products
from .source import Source
from .surroundings import keeping
from .units import find_units
from .walk import call_on_copy


def as_used(model: nn.Module, layers: Sequence[Layer], run: Callable[[], None]) -> list[Layer]:
    """Return layers as the model multiplies them.

    A parameter that no module of its own calls, as that of experts, may be stored as (outputs,
    inputs) or as (inputs, outputs); only its use tells. One that something reads besides its
    modules is to be watched in its products. One whose module is called and computes something
    else of it is no matrix that could be pruned.

    Parameters
    ----------
    model : nn.Module
        What the layers are part of.
    layers : sequence of Layer
        Those to watch.
    run : callable
        Sends a sample through the model.

    Returns
    -------
    list of Layer
        Without those whose module multiplies by other values than the parameter's.
    """
    uses = _Uses(model)
    bare = [layer for layer in layers if not layer.users]
    with ExitStack() as stack:
        stack.enter_context(keeping())
        stack.enter_context(uses.following())
        stack.enter_context(watching_products(model, [*layers, *map(_turn, bare)], uses.note))
        seen = [user for layer in layers for user in (layer.module, *layer.users)]
        stack.enter_context(suppress(HeadReachedError))

        def unless() -> bool:
            # A pass that has put hooks on the model may remove them itself, and what has not been
            # used yet may be after the head.
            return registered.remain(model) or not uses.are_seen(layers)

        stack.enter_context(ending_before_the_head(model, seen, unless))
        registered = Registered()
        run()
    return [uses.apply(layer) for layer in layers if uses.are_understood(layer)]


def find_uses(source: Source, coverage: Coverage, samples: Sequence[Any]) -> None:
    """Have the layers of a coverage as the first sample's pass multiplies them.

    Raises
    ------
    LayerError
        If no layer multiplies by its own weight.
    """
    model, layers = source.model, coverage.layers
    if samples:
        units = find_units(model, layers)
        with calibrating(model), source.opened(units), source.on_demand(units):
            found = as_used(model, layers, lambda: call_on_copy(model, samples[0]))
    else:
        found = [layer for layer in layers if not layer.by_products or is_multiplied(layer)]
    coverage.keep(found)


def is_multiplied(layer: Layer) -> bool:
    """Return whether a layer's module multiplies by its own weight, by calling a copy of it.

    Parameters
    ----------
    layer : Layer
        Its weight may be on the meta device.

    Returns
    -------
    bool
        Also True where the module cannot be called with a tensor of its own.
    """
    module: Any = copy.deepcopy(layer.module)
    if layer.weight.is_meta:
        module.to_empty(device="cpu")
    weight = module.weight
    if isinstance(layer.form, Rows | Columns):
        x = weight.new_ones(2, layer.shape[-1])
    else:
        sizes = zip(module.kernel_size, module.dilation, strict=True)
        extent = [gap * (size - 1) + 1 for size, gap in sizes]
        x = weight.new_ones(2, module.in_channels, *extent)
    alone = replace(layer, module=module, users=(module,))
    found: list[Layer] = []
    try:
        with torch.no_grad(), watching_products(module, [alone], lambda at, _: found.append(at)):
            module(x)
    except Exception:
        # Calls of modules like this take more than a tensor; only the model knows.
        return True
    return bool(found)


class _Uses:
    """Which modules are being called, and which products read which layers meanwhile."""

    def __init__(self, model: nn.Module) -> None:
        self._running = [model]
        self._called: set[int] = set()
        self._read: set[str] = set()
        self._forms: dict[str, set[Any]] = defaultdict(set)
        self._readers: dict[str, dict[nn.Module, None]] = defaultdict(dict)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Know the module that is being called while the context lasts."""
        handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, _: Any) -> None:
        self._running.append(module)
        self._called.add(id(module))

    def _leave(self, *_: Any) -> None:
        self._running.pop()

    def note(self, layer: Layer, _: Any) -> None:
        """Note a product with a layer's weight."""
        self._forms[layer.parameter].add(type(layer.form))
        self._read.add(layer.name)
        if not any(user is module for user in layer.users for module in self._running):
            self._readers[layer.name][self._running[-1]] = None

    def are_seen(self, layers: Sequence[Layer]) -> bool:
        """Return whether every layer's module was called, or its parameter read."""
        return all(
            any(id(user) in self._called for user in layer.users)
            or bool(self._forms[layer.parameter])
            for layer in layers
        )

    def are_understood(self, layer: Layer) -> bool:
        """Return whether a layer's own values are what its modules multiply by."""
        if not layer.users or not layer.by_products or layer.name in self._read:
            return True
        # What this sample did not reach another may; it is asked by itself.
        return not any(id(user) in self._called for user in layer.users) and is_multiplied(layer)

    def apply(self, layer: Layer) -> Layer:
        """Return a layer as it was used."""
        if not layer.users:
            # One expert that got tokens speaks for all of its parameter.
            forms = self._forms[layer.parameter]
            return _turn(layer) if forms and type(layer.form) not in forms else layer
        readers = tuple(self._readers[layer.name])
        return replace(layer, by_products=True, readers=readers) if readers else layer


def _turn(layer: Layer) -> Layer:
    return replace(layer, form=Columns() if layer.form == Rows() else Rows())
