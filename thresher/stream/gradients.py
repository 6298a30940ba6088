"""Gradients of a loss with respect to weights that are loaded unit by unit."""

from __future__ import annotations

__all__ = ["collect_gradients"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..parts.layers import Layer
from ..parts.moments import Moment
from ..parts.statistics import Statistics
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
    for sample in samples:
        sums: dict[str, torch.Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(source.opened(units))
            stack.enter_context(source.on_demand([]))
            stack.enter_context(_reloading(source, units, sums))
            with torch.enable_grad():
                torch.autograd.backward(loss(source.model, replica(sample)))
        for layer in layers:
            whole = sums.get(layer.parameter)
            known = torch.zeros(layer.shape) if whole is None else _matrix(layer, whole)
            statistics[layer.name].update_gradient(known)
    return statistics


def _matrix(layer: Layer, gradient: torch.Tensor) -> torch.Tensor:
    return layer.form.matrix(layer.part_of(gradient).float())


@contextmanager
def _reloading(
    source: Source, units: Sequence[Unit], sums: dict[str, torch.Tensor]
) -> Iterator[None]:
    """Have every unit keep its inputs alone, and add its weights' gradients to `sums`."""
    with ExitStack() as stack:
        for unit in units:
            forward = unit.module.forward
            before = unit.module.__dict__.get("forward")
            run = _Run(source, unit, forward, sums)
            unit.module.forward = run
            stack.callback(_restore, unit.module, before)
        # A weight's own gradient is taken inside the units.
        frozen = [p for p in source.model.parameters() if p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        stack.callback(lambda: [parameter.requires_grad_(True) for parameter in frozen])
        yield


def _restore(module: nn.Module, before: Any) -> None:
    if before is None:
        del module.__dict__["forward"]
    else:
        module.forward = before


class _Run:
    """The forward pass of a unit, to be repeated on the way back."""

    def __init__(
        self,
        source: Source,
        unit: Unit,
        forward: Callable[..., Any],
        sums: dict[str, torch.Tensor],
    ) -> None:
        self.source, self.unit, self.forward, self.sums = source, unit, forward, sums

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

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the parameters to differentiate by, by their paths in the model."""
        return {
            layer.parameter: getattr(layer.module, layer.attribute) for layer in self.unit.layers
        }


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
            weights = run.weights()
            for weight in weights.values():
                weight.requires_grad_(True)
            # What a unit changes in place must be no leaf.
            args, keywords = tree_unflatten(
                [leaf.clone() if _is_floating(leaf) else leaf for leaf in flat], ctx.shape
            )
            made = _floating(tree_flatten(run.forward(*args, **keywords))[0])
            pairs = [(m, g) for m, g in zip(made, gradients, strict=True) if m.requires_grad]
            found = torch.autograd.grad(
                [m for m, _ in pairs],
                [*weights.values(), *inputs],
                [g for _, g in pairs],
                allow_unused=True,
            )
            for weight in weights.values():
                weight.requires_grad_(False)
        for name, gradient in zip(weights, found, strict=False):
            if gradient is not None:
                run.sums[name] = run.sums[name] + gradient if name in run.sums else gradient
        return (None, None, None, None, None, *found[len(weights) :])


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()


def _floating(leaves: Sequence[Any]) -> list[torch.Tensor]:
    return [leaf for leaf in leaves if _is_floating(leaf)]
