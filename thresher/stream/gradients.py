"""Gradients of a loss with respect to weights that are loaded unit by unit."""

from __future__ import annotations

__all__ = ["collect_gradients"]

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..parts.layers import Layer
from ..parts.moments import Moment
from ..parts.statistics import Statistics
from .calls import Forward, forward_within
from .source import Source
from .units import Unit
from .walk import replica

Loss = Callable[[nn.Module, Any], torch.Tensor]


def collect_gradients(
    source: Source,
    units: Sequence[Unit],
    needs: Iterable[type[Moment]],
    samples: Iterable[Any],
    loss: Loss,
) -> dict[str, Statistics]:
    """Collect the moments of the loss's gradient over samples.

    A pass keeps what every unit was given and nothing that it computed. On the way back each
    unit is loaded and run again, and hands the gradient of its inputs on, so that no more than
    one unit is in memory at a time. The moments themselves take four bytes a weight each.

    Parameters
    ----------
    source : Source
        The model.
    units : sequence of Unit
        All that hold a layer to differentiate by.
    needs : iterable of Moment classes
        Those of gradients, see :func:`~thresher.parts.moments.backward`.
    samples : iterable
        One backward pass each.
    loss : callable
        ``loss(model, sample)`` returns a scalar tensor.

    Returns
    -------
    dict of str to Statistics
        By layer name. Gradients of the model itself are left as they were.
    """
    needs = frozenset(needs)
    layers = [layer for unit in units for layer in unit.layers]
    statistics = {layer.name: Statistics(layer.name, needs) for layer in layers}
    shared = _Shared(source.model, layers)
    for sample in samples:
        sums: dict[str, torch.Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(source.opened(units))
            stack.enter_context(source.on_demand([]))
            stack.enter_context(_reloading(source, units, shared, sums))
            with torch.enable_grad():
                torch.autograd.backward(loss(source.model, replica(sample)))
        for layer in layers:
            whole = sums.get(layer.parameter)
            known = torch.zeros(layer.shape) if whole is None else _matrix(layer, whole)
            statistics[layer.name].update_gradient(known)
    return statistics


def _matrix(layer: Layer, gradient: torch.Tensor) -> torch.Tensor:
    return layer.form.matrix(layer.part_of(gradient).float())


class _Shared:
    """Parameters to differentiate by that are used in more places than their own layer."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        places: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
        for module in model.modules():
            for name, parameter in module._parameters.items():
                places[id(parameter)].append((module, name))
        self._places: dict[str, list[tuple[nn.Module, str]]] = {}
        for layer in layers:
            found = places[id(getattr(layer.module, layer.attribute))]
            found += [(user, layer.attribute) for user in layer.users]
            if len(dict.fromkeys(found)) > 1 or layer.readers:
                self._places[layer.parameter] = found

    def weights(self) -> list[tuple[str, nn.Parameter]]:
        """Return those that are loaded, by their paths; read from disk there are several of one."""
        found = {
            id(weight): (name, weight)
            for name, places in self._places.items()
            for weight in (getattr(module, attribute) for module, attribute in places)
            if not weight.is_meta
        }
        return list(found.values())


def _add(sums: dict[str, torch.Tensor], name: str, gradient: torch.Tensor | None) -> None:
    if gradient is not None:
        sums[name] = sums[name] + gradient if name in sums else gradient


@contextmanager
def _between_units(shared: _Shared, sums: dict[str, torch.Tensor]) -> Iterator[None]:
    """Add the gradients of shared weights that are used outside the units to `sums`."""
    weights = shared.weights()
    before = [(weight.requires_grad, weight.grad) for _, weight in weights]
    for _, weight in weights:
        weight.requires_grad_(True)
        weight.grad = None
    try:
        yield
        for name, weight in weights:
            _add(sums, name, weight.grad)
    finally:
        for (_, weight), (wanted, gradient) in zip(weights, before, strict=True):
            weight.grad = gradient
            weight.requires_grad_(wanted)


@contextmanager
def _reloading(
    source: Source, units: Sequence[Unit], shared: _Shared, sums: dict[str, torch.Tensor]
) -> Iterator[None]:
    """Have every unit keep its inputs alone, and add its weights' gradients to `sums`."""
    with ExitStack() as stack:
        for unit in units:
            wrap = functools.partial(_Run, source, unit, shared, sums)
            stack.enter_context(forward_within(unit.module, wrap))
        # A weight's own gradient is taken inside the units.
        frozen = [p for p in source.model.parameters() if p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        stack.callback(lambda: [parameter.requires_grad_(True) for parameter in frozen])
        stack.enter_context(_between_units(shared, sums))
        yield


class _Run:
    """The forward pass of a unit, to be repeated on the way back."""

    def __init__(
        self,
        source: Source,
        unit: Unit,
        shared: _Shared,
        sums: dict[str, torch.Tensor],
        forward: Forward,
    ) -> None:
        self.source, self.unit, self.forward = source, unit, forward
        self.shared, self.sums = shared, sums

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        flat, shape = tree_flatten((args, keywords))
        outputs: list[Any] = []
        # Without an input that has a gradient autograd would not come by.
        anchor = torch.zeros((), requires_grad=True)
        run: Any = _Again.apply  # type: ignore[no-untyped-call]
        tensors = run(self, flat, shape, outputs, anchor, *_floating(flat))
        leaves, form = outputs
        found = iter(tensors)
        return tree_unflatten(
            [next(found) if _is_floating(leaf) else leaf for leaf in leaves], form
        )

    def weights(self) -> list[tuple[str, nn.Parameter]]:
        """Return the parameters to differentiate by, with their paths in the model."""
        own = {
            layer.parameter: getattr(layer.module, layer.attribute) for layer in self.unit.layers
        }
        known = {id(weight) for weight in own.values()}
        # The unit may use what belongs to another one.
        return [*own.items(), *((n, w) for n, w in self.shared.weights() if id(w) not in known)]


class _Again(torch.autograd.Function):
    """Runs a unit without keeping its activations, and once more for its gradients."""

    @staticmethod
    def forward(ctx: Any, run: _Run, flat: Any, shape: Any, outputs: Any, *tensors: Any) -> Any:
        ctx.run, ctx.flat, ctx.shape = run, flat, shape
        args, keywords = tree_unflatten(replica(flat), shape)
        with run.source.loaded(run.unit):
            leaves, form = tree_flatten(run.forward(*args, **keywords))
        outputs[:] = [leaves, form]
        return tuple(leaf.detach() for leaf in _floating(leaves))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        run = ctx.run
        flat = [leaf.detach().clone() if _is_floating(leaf) else replica(leaf) for leaf in ctx.flat]
        inputs = [leaf.requires_grad_() for leaf in _floating(flat)]
        args, keywords = tree_unflatten(flat, ctx.shape)
        with run.source.loaded(run.unit), torch.enable_grad():
            names, weights = zip(*run.weights(), strict=True)
            wanted = [weight.requires_grad for weight in weights]
            for weight in weights:
                weight.requires_grad_(True)
            # What a unit changes in place must be no leaf.
            args, keywords = tree_unflatten(
                [leaf.clone() if _is_floating(leaf) else leaf for leaf in flat], ctx.shape
            )
            made = _floating(tree_flatten(run.forward(*args, **keywords))[0])
            pairs = [(m, g) for m, g in zip(made, gradients, strict=True) if m.requires_grad]
            found = torch.autograd.grad(
                [m for m, _ in pairs],
                [*weights, *inputs],
                [g for _, g in pairs],
                allow_unused=True,
            )
            for weight, asked in zip(weights, wanted, strict=True):
                weight.requires_grad_(asked)
        for name, gradient in zip(names, found, strict=False):
            _add(run.sums, name, gradient)
        return (None, None, None, None, None, *found[len(weights) :])


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()


def _floating(leaves: Sequence[Any]) -> list[torch.Tensor]:
    return [leaf for leaf in leaves if _is_floating(leaf)]
