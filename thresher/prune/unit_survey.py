"""What the units of coupled groups cost, asked of the layers that they are in."""

from __future__ import annotations

__all__ = ["Survey", "labels_of"]

import math
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..core.errors import NumericalError
from ..parts.groups.find import Group, Member
from ..parts.groups.shrink import kind_of
from ..parts.layers import Layer
from ..parts.moments import Gram, Moment
from ..parts.rankings import Ranking
from ..parts.spreads import Ranked
from ..parts.statistics import Statistics
from ..stream.change import AngularChange
from ..stream.collect import collect_inputs
from ..stream.stream import Stream


def labels_of(layer: Layer, member: Member) -> torch.Tensor:
    """Return the unit that every weight of a layer belongs to, -1 where none.

    Parameters
    ----------
    layer : Layer
        Of the parameter of `member`.
    member : Member

    Returns
    -------
    Tensor of int64, shape (..., rows, columns)
        In the layer's matrix form.
    """
    shape = getattr(layer.module, layer.attribute).shape
    units = torch.full((shape[member.axis],), -1)
    units[torch.from_numpy(member.indices)] = torch.arange(len(member.indices)).unsqueeze(1)
    view = [1] * len(shape)
    view[member.axis] = -1
    return layer.matrix(layer.part_of(units.view(view).expand(shape))).long()


@dataclass
class Survey:
    """The costs of units, added up over the layers of their groups.

    Parameters
    ----------
    ranking : Ranking
    layers : dict of str to list of Layer
        By parameter, the layers that it is.
    groups : sequence of Group
    also : frozenset of Moment classes
        What to collect besides.
    after : callable, optional
        ``after(layer, statistics)`` is called with each layer's statistics.
    by_change : bool, default False
        Whether to measure how far blocks turn the states of tokens.

    Attributes
    ----------
    costs : dict of str to array of float64
        By group.
    places : dict of str to float
        By group, how deep its first layer is, in [0, 1].
    changes : dict of str to float
        By group, the change of the block of its first layer.
    """

    ranking: Ranking
    layers: dict[str, list[Layer]]
    groups: Sequence[Group]
    also: frozenset[type[Moment]] = frozenset()
    after: Callable[[Layer, Statistics], None] | None = None
    by_change: bool = False

    def __post_init__(self) -> None:
        self.costs = {group.name: np.zeros(group.size) for group in self.groups}
        self.places: dict[str, float] = {}
        self.changes: dict[str, float] = {}
        self._members: dict[str, list[tuple[Group, Member]]] = {}
        for group in self.groups:
            for member in group.members if self.ranking.of_all else group.consumers:
                for layer in self.layers.get(member.parameter, ()):
                    self._members.setdefault(layer.name, []).append((group, member))

    @property
    def watched(self) -> list[Layer]:
        """The layers that are asked."""
        every = (layer for layers in self.layers.values() for layer in layers)
        return [layer for layer in every if layer.name in self._members]

    def ranked(self, model: nn.Module) -> list[Ranked]:
        """Return the groups of which a layer was asked, as a spread sees them."""
        return [
            Ranked(
                group.name,
                self.costs[group.name],
                kind_of(model, group),
                group.step,
                self.places[group.name],
                self.changes[group.name],
            )
            for group in self.groups
            if group.name in self.places
        ]

    def take(self, stream: Stream) -> None:
        """Ask every layer, in the order in which the model runs them."""
        needs = self.ranking.needs | self.also
        with closing((stream if needs else stream.without_samples()).visits()) as visits:
            for visit in visits:
                layers = [la for la in visit.unit.layers if la.name in self._members]
                found = {layer.name: Statistics(layer.name) for layer in layers}
                change = AngularChange()
                if needs and layers:
                    model, block = stream.source.model, visit.unit.module
                    with change.watching(block) if self.by_change else nullcontext():
                        found = collect_inputs(model, layers, needs, visit.run)
                place = visit.index / max(1, len(stream.units) - 1)
                for layer in layers:
                    known = found.pop(layer.name)
                    if not needs or known.tokens:
                        self.ask(layer, known, place, change.value)

    def ask(
        self, layer: Layer, statistics: Statistics, place: float, change: float = math.nan
    ) -> None:
        """Add what the units cost in a layer.

        Parameters
        ----------
        layer : Layer
            One of :attr:`watched`.
        statistics : Statistics
            With the moments that the ranking needs.
        place : float
            How deep in the model it is, in [0, 1].
        change : float, default NaN
            Of its block.

        Raises
        ------
        NumericalError
            If a cost is NaN or infinite.
        """
        weight = layer.matrix()
        scale = _energy(weight, statistics) if Gram in self.ranking.needs else 1.0
        if self.after is not None:
            self.after(layer, statistics)
        for group, member in self._members[layer.name]:
            labels = labels_of(layer, member).to(weight.device)
            costs = self.ranking(weight, labels, group.size, statistics)
            if not bool(torch.isfinite(costs).all()):
                raise NumericalError(
                    f"the units of layer {layer.name!r} cost NaN or infinitely much; check its "
                    "weights and the calibration data"
                )
            self.costs[group.name] += (costs / scale).cpu().numpy()
            self.places.setdefault(group.name, place)
            self.changes.setdefault(group.name, change)


def _energy(weight: torch.Tensor, statistics: Statistics) -> float:
    """Return the mean square of what a layer gives."""
    energy = float(((weight @ statistics[Gram].value) * weight).sum())
    return energy or 1.0
