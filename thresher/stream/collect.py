"""Filling statistics: hooks on layers while a block runs, and gradients of a loss."""

from __future__ import annotations

__all__ = ["collect_gradients", "collect_inputs"]

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from ..core.errors import NumericalError
from ..parts.layers import Layer
from ..parts.moments import Moment
from ..parts.statistics import Statistics


class _Collector:
    """Feeds every layer's inputs to its statistics, computing shared ones once.

    Query, key and value projections are given the very same tensor, as are the gate and up
    projections; a layer called right after another with the same tensor shares its moments.
    """

    def __init__(self, layers: Sequence[Layer], needs: Iterable[type[Moment]]) -> None:
        self.statistics = {layer.name: Statistics(layer.name, needs) for layer in layers}
        self._leaders: dict[str, str] = {}
        self._last: tuple[torch.Tensor, Any, str] | None = None

    def take(self, layer: Layer, module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0].detach()
        reading = (_reading(layer), _version(args[0]))
        if self._last is not None and self._last[0] is args[0] and self._last[1] == reading:
            leader = self._last[2]
            if self._leaders.setdefault(layer.name, leader) == leader:
                return
        if layer.name in self._leaders:
            # It shared its input at first and no longer does: its moments would be wrong.
            raise NumericalError(
                f"layer {layer.name!r} shares its input with {self._leaders[layer.name]!r} for "
                "some samples only; calibrate with samples of one shape"
            )
        self._last = (args[0], reading, layer.name)
        # Under autocast the sums below would be rounded to the forward pass's precision.
        with torch.autocast(x.device.type, enabled=False):
            self.statistics[layer.name].update(layer.inputs(x))

    def finish(self) -> dict[str, Statistics]:
        self._last = None
        for follower, leader in self._leaders.items():
            self.statistics[follower] = self.statistics[leader].renamed(follower)
        return self.statistics


def _reading(layer: Layer) -> Any:
    """Return what, besides the input, decides the rows a layer makes of it."""
    module = layer.module
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return (module.kernel_size, module.stride, module.padding, module.dilation, module.groups)
    return None


def _version(x: torch.Tensor) -> int:
    """Return how often a tensor was changed in place."""
    return 0 if x.is_inference() else x._version


def collect_inputs(
    layers: Sequence[Layer], needs: Iterable[type[Moment]], run: Callable[[], None]
) -> dict[str, Statistics]:
    """Collect the input statistics of layers while `run` sends data through them.

    Parameters
    ----------
    layers : sequence of Layer
        The layers to watch.
    needs : iterable of Moment classes
        See :class:`Statistics`.
    run : callable
        Runs the modules on all calibration data.

    Returns
    -------
    dict of str to Statistics
        By layer name.
    """
    collector = _Collector(layers, needs)
    handles = [
        layer.module.register_forward_pre_hook(functools.partial(collector.take, layer))
        for layer in layers
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return collector.finish()


def collect_gradients(
    model: nn.Module,
    layers: Sequence[Layer],
    needs: Iterable[type[Moment]],
    samples: Iterable[Any],
    loss: Callable[[nn.Module, Any], torch.Tensor],
) -> dict[str, Statistics]:
    """Collect the moments of the loss's gradient over samples.

    Parameters
    ----------
    model : nn.Module
        The whole model, in memory.
    layers : sequence of Layer
        Whose weights to differentiate by.
    needs : iterable of Moment classes
        Which moments of the gradient, see :func:`~thresher.parts.moments.backward`.
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
    statistics = {layer.name: Statistics(layer.name, needs) for layer in layers}
    weights = [layer.weight for layer in layers]
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        for sample in samples:
            with torch.enable_grad():
                gradients = torch.autograd.grad(loss(model, sample), weights, allow_unused=True)
            for layer, gradient in zip(layers, gradients, strict=True):
                known = torch.zeros_like(layer.weight) if gradient is None else gradient
                statistics[layer.name].update_gradient(layer.matrix(known))
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
    return statistics
