"""Slopes of a loss along random directions of the weights: gradients without a backward pass."""

from __future__ import annotations

__all__ = ["collect_slopes"]

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..parts.layers import Layer
from ..parts.moments import Moment
from ..parts.statistics import Statistics
from .gradients import Loss
from .source import Source
from .units import Unit
from .walk import replica

#: Samples that the norm of a gradient is estimated from, and by how much weights move.
SAMPLES, STEP = 32, 1e-3


@torch.no_grad()
def collect_slopes(
    source: Source,
    units: Sequence[Unit],
    needs: Iterable[type[Moment]],
    samples: Sequence[Any],
    loss: Loss,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Statistics]:
    """Collect the slopes of the loss as the weights of one unit after another move.

    For every unit and each of the first ``SAMPLES`` samples the unit's weights go by
    ``STEP`` along a standard normal direction of their own, and then as far the other way.
    Units that the loss does not depend on see no slope.

    Parameters
    ----------
    source : Source
        The model; its weights are afterwards what they were.
    units : sequence of Unit
        All that hold a layer.
    needs : iterable of Moment classes
        Those of slopes, see :func:`~thresher.parts.moments.perturbed`.
    samples : sequence
        Two passes each for every unit.
    loss : callable
        ``loss(model, sample)`` returns a scalar tensor.
    progress : callable, optional
        ``progress(text)`` is called when a unit is done.

    Returns
    -------
    dict of str to Statistics
        By layer name, the same for all layers of a unit.

    References
    ----------
    Sung et al., ECoFLaP (2024), section 3; Spall, Multivariate stochastic approximation using a
    simultaneous perturbation gradient approximation (1992); Malladi et al., Fine-Tuning Language
    Models with Just Forward Passes (2023), for the step.
    """
    needs = frozenset(needs)
    found: dict[str, Statistics] = {}
    for unit in units:
        slopes = [
            _slope(source, units, unit, index, sample, loss)
            for index, sample in enumerate(samples[:SAMPLES])
        ]
        for layer in unit.layers:
            found[layer.name] = Statistics(layer.name, needs)
            for slope in slopes if any(slopes) else []:
                found[layer.name].update_slope(slope)
        progress(f"perturbed {unit.name or 'the model'}")
    return found


def _slope(
    source: Source, units: Sequence[Unit], unit: Unit, index: int, sample: Any, loss: Loss
) -> torch.Tensor:
    """Return the central difference of one sample's loss."""
    values = []
    for step in (STEP, -STEP):
        with (
            source.opened(units),
            source.loaded(unit),
            _moved(unit.layers, index, step),
            source.on_demand(units),
        ):
            values.append(loss(source.model, replica(sample)).double())
    return (values[0] - values[1]) / (2 * STEP)


@contextmanager
def _moved(layers: Sequence[Layer], index: int, step: float) -> Iterator[None]:
    """Have layers' weights moved by `step` along the direction of a sample."""
    before = [layer.weight.clone() for layer in layers]
    try:
        for layer, weight in zip(layers, before, strict=True):
            seed = zlib.crc32(f"{index}/{layer.name}".encode())
            direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
            layer.overwrite(weight + step * direction.to(weight))
        yield
    finally:
        for layer, weight in zip(layers, before, strict=True):
            layer.overwrite(weight)
