"""Stages: the layers of a unit in groups, each fed by what the groups before it have become."""

from __future__ import annotations

__all__ = ["find_stages"]

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..parts.layers import Layer
from .calls import version_of, watching_calls
from .collect import Stage
from .ranks import check_agreement
from .visit import Visit

#: Of a list's child or a slice: not the number in a name of its own, such as that of ``fc1``.
_INDEX = re.compile(r"(?<![^.\[])\d+(?![^.\]])")


def find_stages(visit: Visit) -> list[Stage]:
    """Part the layers of a unit by when they run, as the first sample's pass shows.

    Layers that are given the very same tensor run together, as do those of one shape whose names
    differ in indices alone, such as experts. What the pass does not call goes with the last.

    Parameters
    ----------
    visit : Visit
        Of the unit.

    Returns
    -------
    list of Stage

    Raises
    ------
    DataError
        If processes that share the samples find different ones.
    """
    layers = visit.unit.layers
    called = [layer for layer in layers if layer.is_called]
    if not visit.alone or len(called) < 2:
        return [Stage(layers)]
    calls = _Calls()
    with watching_calls(called, calls.note):
        visit.run(most=1)
    first: dict[str, int] = {}
    for place, name in enumerate(calls.order):
        first.setdefault(calls.groups[name], place)
    together: dict[str, list[Layer]] = {}
    for layer in layers:
        group = calls.groups.get(layer.name) or max(first, key=first.__getitem__, default="")
        together.setdefault(group, []).append(layer)
    ordered = sorted(together, key=lambda group: first.get(group, 0))
    # Where each is called once, in every pass, calls show when a stage's are over.
    once = all(calls.counts[layer.name] == 1 for layer in layers)
    stages = []
    for place, group in enumerate(ordered):
        later = [layer for each in ordered[place + 1 :] for layer in together[each]]
        clear = once and _ends_before(calls.order, together[group], later)
        begins = calls.first_of(together[group]) if clear else None
        stages.append(Stage(tuple(together[group]), tuple(later) if clear else (), once, begins))
    # Processes must add up moments of the same layers at the same time.
    order = [[layer.name for layer in stage.layers] for stage in stages]
    check_agreement(order, f"the order of layers in {visit.unit.name!r}")
    return stages


def _ends_before(order: Sequence[str], these: Sequence[Layer], later: Sequence[Layer]) -> bool:
    last = max((order.index(layer.name) for layer in these), default=-1)
    return all(order.index(layer.name) > last for layer in later)


@dataclass
class _Calls:
    """The calls of layers in one pass, in order, and which of them belong together."""

    order: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    groups: dict[str, str] = field(default_factory=dict)
    _inputs: dict[str, tuple[int, int]] = field(default_factory=dict)
    _given: list[tuple[torch.Tensor, str]] = field(default_factory=list)
    _alike: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)

    def note(self, layer: Layer, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        name = layer.name
        self.order.append(name)
        self.counts[name] += 1
        given = next((x for x in (*args, *keywords.values()) if torch.is_tensor(x)), None)
        same = next((other for x, other in self._given if x is given), name)
        alike = self._alike.setdefault((_INDEX.sub("*", name), layer.shape), same)
        self._join(name, same)
        self._join(name, alike)
        if given is not None:
            # Held, so that no other tensor could come to lie in the same place.
            self._given.append((given, name))
            self._inputs[name] = id(given), version_of(given)

    def first_of(self, layers: Sequence[Layer]) -> Layer | None:
        """Return which of some layers is called first, if all are given the very same then."""
        first = min(layers, key=lambda layer: self.order.index(layer.name))
        same = {self._inputs.get(layer.name) for layer in layers}
        return first if len(same) == 1 and None not in same else None

    def _join(self, name: str, other: str) -> None:
        """Have two layers, and all that go with either, in one group."""
        mine = self.groups.setdefault(name, name)
        theirs = self.groups.setdefault(other, other)
        for each, group in self.groups.items():
            if group == theirs:
                self.groups[each] = mine
