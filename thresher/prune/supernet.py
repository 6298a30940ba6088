"""A supernet: every group pruned to several widths, of which any choice is a model."""

from __future__ import annotations

__all__ = ["Supernet", "alone"]

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

import torch

from ..parts.groups.find import Group
from ..parts.layers import Layer
from ..parts.rankings import Ranking
from ..parts.spreads import Ranked
from ..parts.statistics import Statistics
from ..parts.updates import Update
from ..stream.collect import collect_inputs
from ..stream.units import find_units
from ..stream.visit import Visit
from .unit_refit import columns_that_stay, made_up
from .unit_search import Candidates
from .unit_survey import Survey


def alone(candidates: Candidates) -> list[Ranked]:
    """Return the groups whose units one block takes, in layers that take no others' units.

    Parameters
    ----------
    candidates : Candidates
        What may go.
    """
    of_layer = {
        layer.name: index
        for index, unit in enumerate(find_units(candidates.model, _takers(candidates)))
        for layer in unit.layers
    }
    found, taken = [], set[str]()
    for ranked in candidates.groups:
        layers = {la.name for la in _consumers(candidates, candidates.coupled[ranked.name])}
        if len({of_layer[name] for name in layers}) == 1 and taken.isdisjoint(layers):
            found.append(ranked)
            taken |= layers
    return found


def _consumers(candidates: Candidates, group: Group) -> list[Layer]:
    return [la for m in group.consumers for la in candidates.layers.get(m.parameter, ())]


def _takers(candidates: Candidates) -> list[Layer]:
    groups = [candidates.coupled[ranked.name] for ranked in candidates.groups]
    found = {la.name: la for group in groups for la in _consumers(candidates, group)}
    return list(found.values())


class Supernet:
    """The layers that take the units of some groups, refitted for several widths of each.

    Blocks are gone through in order. What a block passes on is the expectation over its widths,
    each counting by the share of its units that stay, so that those after it know of the error of
    all.

    Parameters
    ----------
    candidates : Candidates
        Of the dense model, which is left as it was.
    ranking : Ranking
        Which units go first, asked in each block of what it is given.
    update : Update
        How layers make up for them.
    counts : mapping of str to sequence of int
        By group, see :func:`alone`: how many units go, for each of its widths.

    Attributes
    ----------
    ranked : dict of str to Ranked
        By group, what its units cost.

    References
    ----------
    Li et al., Týr-the-Pruner (2025), section 2.3, equation 5 and algorithm 2.
    """

    def __init__(
        self,
        candidates: Candidates,
        ranking: Ranking,
        update: Update,
        counts: Mapping[str, Sequence[int]],
    ) -> None:
        self._candidates, self._update, self._counts = candidates, update, counts
        groups = [group for group in candidates.coupled.groups if group.name in counts]
        layers = {name: list(found) for name, found in candidates.layers.items()}
        self._survey = Survey(ranking, layers, groups)
        self.ranked: dict[str, Ranked] = {}
        #: By group and width, the layers' weights.
        self._variants: dict[str, list[dict[str, torch.Tensor]]] = {}
        self._layers = {layer.name: layer for layer in self._survey.watched}
        with _restored(self._layers.values()):
            stream = candidates.stream(self._survey.watched)
            with closing(stream.visits()) as visits:
                for visit in visits:
                    self._prune(visit, visit.index / max(1, len(stream.units) - 1))

    @contextmanager
    def using(self, widths: Mapping[str, int]) -> Iterator[None]:
        """Have the model of these widths while the context lasts.

        Parameters
        ----------
        widths : mapping of str to int
            By group, the index of its count.
        """
        chosen = {
            name: weight
            for group, width in widths.items()
            for name, weight in self._variants[group][width].items()
        }
        with _restored([self._layers[name] for name in chosen]):
            for name, weight in chosen.items():
                self._layers[name].overwrite(weight)
            yield

    def _prune(self, visit: Visit, place: float) -> None:
        """Refit a block's layers for every width, and leave it with the expectation."""
        layers = [layer for layer in visit.unit.layers if layer.name in self._layers]
        needs = self._survey.ranking.needs | self._update.needs
        found = collect_inputs(self._candidates.model, layers, needs, visit.run)
        for layer in layers:
            self._survey.ask(layer, found[layer.name], place)
        here = [g for g in self._survey.groups if self._is_of(g, found)]
        names = {group.name for group in here}
        ranked = {r.name: r for r in self._survey.ranked(self._candidates.model) if r.name in names}
        self.ranked |= ranked
        for group in here:
            shares, variants = [], []
            for count in self._counts[group.name]:
                gone = {group.name: ranked[group.name].cheapest(count)}
                variants.append(self._without(group, gone, found))
                shares.append(1 - count / group.size)
            self._variants[group.name] = variants
            for name in variants[0]:
                every = torch.stack([weights[name].double() for weights in variants])
                counted = every.new_tensor(shares) / sum(shares)
                self._layers[name].overwrite(torch.tensordot(counted, every, 1))

    def _is_of(self, group: Group, found: Mapping[str, Statistics]) -> bool:
        return any(layer.name in found for layer in _consumers(self._candidates, group))

    def _without(
        self, group: Group, gone: dict[str, list[int]], found: Mapping[str, Statistics]
    ) -> dict[str, torch.Tensor]:
        masks = columns_that_stay(self._candidates.layers, [group], gone)
        made = {}
        for layer in _consumers(self._candidates, group):
            if layer.name in masks:
                mask = masks[layer.name]
                made[layer.name] = made_up(layer, mask, self._update, found[layer.name])
            else:
                made[layer.name] = layer.weight.detach().clone()
        return made


@contextmanager
def _restored(layers: Iterable[Layer]) -> Iterator[None]:
    before = [(layer, layer.weight.detach().clone()) for layer in layers]
    try:
        yield
    finally:
        for layer, weight in before:
            layer.overwrite(weight)
