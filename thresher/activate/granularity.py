"""Granularities: what of a unit's layers is dropped, inputs of projections or whole neurons."""

from __future__ import annotations

__all__ = ["Granularity", "Hidden", "Inputs", "Neurons", "NeuronsAndAttention"]

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.named import Spelled
from ..parts.activations.attached import OUTPUTS
from ..parts.activations.sites import Site
from ..parts.elementwise import name_of
from ..parts.layers import Layer
from ..stream.feedforward import FeedForward, find_feed_forward
from ..stream.reach import find_near_attention
from ..stream.visit import Visit


class Granularity(Spelled, ABC):
    """Base class of granularities."""

    kind = "granularity"

    @abstractmethod
    def __call__(self, visit: Visit, layers: Sequence[Layer]) -> list[Site]:
        """Return the sites of a unit.

        Parameters
        ----------
        visit : Visit
            Of the unit, dense.
        layers : sequence of Layer
            Those of the unit that selections can be attached to.
        """


@dataclass(frozen=True)
class Inputs(Granularity):
    """The inputs of every projection, each chosen by itself."""

    name = "inputs"

    def __call__(self, visit: Visit, layers: Sequence[Layer]) -> list[Site]:
        """Return a site for every layer."""
        return [Site.of_inputs(layer) for layer in layers]


@dataclass(frozen=True)
class Neurons(Granularity):
    """The neurons of feed-forward networks, chosen by their gate.

    Where a gate is dropped, neither the weights that would have made what it scales nor those that
    multiply the neuron are read. Without a gate it is the neuron itself that is chosen.
    """

    name = "neurons"

    def __call__(self, visit: Visit, layers: Sequence[Layer]) -> list[Site]:
        """Return a site for every network whose activation is zero at zero."""
        names = {layer.name for layer in layers}
        return [
            _neurons(network)
            for network in find_feed_forward(visit)
            if name_of(network.activation) != "sigmoid"
            and names.issuperset(layer.name for layer in network.layers)
        ]


@dataclass(frozen=True)
class Hidden(Granularity):
    """What feed-forward networks pass to their last layer: neurons, after gates have scaled them.

    The weights that make a neuron are read before it is known to be dropped; of those that meet it
    no token reads what is dropped.
    """

    name = "hidden"

    def __call__(self, visit: Visit, layers: Sequence[Layer]) -> list[Site]:
        """Return a site for the last layer of every network."""
        names = {layer.name for layer in layers}
        downs = [network.down for network in find_feed_forward(visit)]
        return [Site.of_inputs(layer) for layer in downs if layer.name in names]


@dataclass(frozen=True)
class NeuronsAndAttention(Granularity):
    """Neurons, and the inputs of those projections of attention that act on one token alone.

    Those are queries and outputs, whatever they are called: errors of keys and values would stay in
    the cache. Projections that are fused with these stay dense.
    """

    name = "neurons+attention"

    def __call__(self, visit: Visit, layers: Sequence[Layer]) -> list[Site]:
        """Return the sites of networks and of attention."""
        sites = Neurons()(visit, layers)
        inside = {layer.name for site in sites for layer in (site.layer, *site.skipped)}
        others = [layer for layer in layers if layer.name not in inside]
        return [*map(Site.of_inputs, find_near_attention(visit, others)), *sites]


def _neurons(network: FeedForward) -> Site:
    activation = name_of(network.activation)
    if network.gate is None:
        return Site(network.up, OUTPUTS, (network.down,), activation)
    skipped = (network.up, network.down)
    return Site(network.gate, OUTPUTS, skipped, activation, partner=network.up)
