"""The feed-forward networks of a model in memory, and what their last layers are given."""

from __future__ import annotations

__all__ = [
    "Networks",
    "SeenNetwork",
    "check_relu",
    "dropping",
    "find_networks",
    "see_networks",
]

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.errors import LayerError
from ..parts.activations.attached import Tally, check_none, counting, has_selection
from ..parts.activations.importance import ColumnNorm
from ..parts.activations.selection import Threshold
from ..parts.activations.sites import Site
from ..parts.coverage import cover
from ..parts.elementwise import name_of
from ..parts.input_rows import InputRows
from ..stream.calls import input_of, watching_calls
from ..stream.collect import collect_inputs
from ..stream.feedforward import FeedForward, find_feed_forward
from ..stream.passes import calibrating, call
from ..stream.samples import as_samples
from ..stream.source import InMemory
from ..stream.stream import Stream
from ..stream.units import find_units
from ..stream.uses import find_uses
from .calibrate import attachable
from .memory import LENGTH, WINDOWS

#: Activations that are exactly zero where their argument is not positive.
_RELUS = ("relu", "squared-relu")
Note = Callable[[FeedForward, torch.Tensor], None]


@dataclass(frozen=True)
class Networks:
    """The feed-forward networks of a model, and samples to send through it.

    Parameters
    ----------
    model : nn.Module
        Whose they are.
    networks : tuple of FeedForward
        In the order in which they run.
    samples : list
        Inputs of the model.
    """

    model: nn.Module
    networks: tuple[FeedForward, ...]
    samples: list[Any]

    @contextmanager
    def watched(self, note: Note) -> Iterator[None]:
        """Call ``note(network, hidden)`` when the last layer of one is called, in the context.

        `hidden` is as the model has it, with its gradient's history.
        """
        by_layer = {network.down.name: network for network in self.networks}

        def noting(layer: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            note(by_layer[layer.name], input_of(layer, args, keywords))

        with watching_calls([network.down for network in self.networks], noting):
            yield

    def run(self) -> None:
        """Send every sample through the whole model, without gradients."""
        with torch.no_grad(), calibrating(self.model):
            for sample in self.samples:
                call(self.model, sample)


def find_networks(
    model: nn.Module,
    data: Any = None,
    *,
    tokenizer: Any = None,
    windows: int | None = None,
    length: int | None = None,
) -> Networks:
    """Find the feed-forward networks of a model by what its layers do.

    Parameters
    ----------
    model : nn.Module
        Whose activations are dense.
    data, tokenizer, windows, length : optional
        See :func:`thresher.activate`.

    Raises
    ------
    ThresherError
        If there is none, the model has selections, or the data cannot be used.
    """
    check_none(model, "take the dense model")
    default = (WINDOWS, LENGTH)
    samples, _ = as_samples(
        model, data, tokenizer=tokenizer, windows=windows, length=length, default=default
    )
    source, coverage = InMemory(model), cover(model, strict=False)
    find_uses(source, coverage, samples)
    stream = Stream(source, find_units(model, attachable(coverage)), samples)
    with torch.no_grad(), closing(stream.visits()) as visits:
        found = [network for visit in visits for network in find_feed_forward(visit)]
    if not found:
        raise LayerError(
            f"no feed-forward network is recognised in {type(model).__name__}; use a method that "
            "drops inputs, such as 'teal'"
        )
    return Networks(model, tuple(found), samples)


def check_relu(networks: Sequence[FeedForward], purpose: str) -> None:
    """Raise unless every network has zeros that are none of a threshold's.

    Parameters
    ----------
    networks : sequence of FeedForward
        What is checked.
    purpose : str
        What needs the zeros, to begin the message with.

    Raises
    ------
    LayerError
        Naming the first network without, and the method that makes such a model.
    """
    for network in networks:
        activation = name_of(network.activation)
        if activation not in _RELUS:
            opening = network.gate or network.up
            raise LayerError(
                f"{purpose} needs ReLUs, and what layer {opening.name!r} gives is activated by "
                f"{activation!r}, which is hardly ever zero; 'prosparse' "
                "(thresher.activate.prosparse) makes a model with ReLUs of it"
            )


@dataclass(frozen=True)
class SeenNetwork:
    """A feed-forward network, and what calibration gave its last layer.

    Parameters
    ----------
    network : FeedForward
        What was watched.
    rows : Tensor of shape (tokens, neurons)
        Evenly spaced over all tokens, in float32.
    norms : Tensor of shape (neurons,)
        Of the columns of the last layer's weights.
    """

    network: FeedForward
    rows: torch.Tensor
    norms: torch.Tensor

    @property
    def site(self) -> Site:
        """Where neurons are dropped."""
        return Site.of_inputs(self.network.down)

    @property
    def sizes(self) -> torch.Tensor:
        """Norms of what neurons add to the output, of shape (tokens, neurons)."""
        return self.rows.abs() * self.norms


def see_networks(networks: Networks, most: int = 512) -> list[SeenNetwork]:
    """Collect what the samples give every network's last layer.

    Parameters
    ----------
    networks : Networks
        What is watched, in passes of the whole model.
    most : int, default 512
        Rows that are kept of each.
    """
    downs = [network.down for network in networks.networks]
    found = collect_inputs(networks.model, downs, {InputRows}, networks.run)
    seen = []
    for network in networks.networks:
        rows = found[network.down.name][InputRows].value
        norms = ColumnNorm()(Site.of_inputs(network.down), found)
        assert norms is not None
        seen.append(SeenNetwork(network, rows[:: -(-len(rows) // most)], norms))
    return seen


@contextmanager
def dropping(cuts: Sequence[tuple[Site, torch.Tensor]]) -> Iterator[dict[str, Tally]]:
    """Drop what is below thresholds, and count it, while the context lasts.

    Parameters
    ----------
    cuts : sequence of tuple of Site and Tensor
        Thresholds of shape () or (channels,); what is below infinity is dropped always.

    Raises
    ------
    LayerError
        If something is dropped there already.
    """
    for site, _ in cuts:
        if has_selection(site.layer.module, site.side):
            raise LayerError(
                f"the {site.side} of layer {site.name!r} are dropped already; do one "
                "after the other"
            )
    try:
        for site, threshold in cuts:
            site.attach(Threshold(threshold))
        with counting() as tallies:
            yield tallies
    finally:
        for site, _ in cuts:
            site.remove()
