"""Pauses: samples that wait inside a unit, before the layers that are pruned next."""

from __future__ import annotations

__all__ = ["cost_of_pauses", "pausing"]

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import greenlet
import torch

from ..core.errors import DataError
from ..parts.layers import Layer
from .calls import input_of, version_of, watching_calls
from .collect import Stage
from .locks import held_lock
from .marks import difference, mark
from .units import Unit
from .walk import Halt, Walk, lending, tensors


@contextmanager
def pausing(unit: Unit, stages: Sequence[Stage]) -> Iterator[None]:
    """Have walks halt inside a unit too, where a stage begins, while the context lasts.

    Parameters
    ----------
    unit : Unit
        What they are halted in.
    stages : sequence of Stage
        All of the unit's, each with a first layer.

    Raises
    ------
    DataError
        In a walk, where a stage's layers are not given what its first one was, by which all of
        them were calibrated.
    """
    pauses = _Pauses(unit, stages)
    with watching_calls([layer for stage in stages for layer in stage.layers], pauses.note):
        yield


def cost_of_pauses(
    unit: Unit, stages: Sequence[Stage], begin: Callable[[], list[Walk]], tolerance: float
) -> int | None:
    """Return what stages are given for samples that wait inside a unit, side by side, in bytes.

    None where the unit gives something else for them than for each alone, as it does where it
    keeps something of one sample that another one writes over meanwhile.

    Parameters
    ----------
    unit : Unit
        What is tried.
    stages : sequence of Stage
        All of the unit's, each with a first layer.
    begin : callable
        Returns walks that stand before the unit, the same ones whenever it is called.
    tolerance : float
        Largest relative difference that rounding explains.
    """
    plain = [_ended(walk) for walk in begin()]
    walks, cost = begin(), 0
    try:
        with pausing(unit, stages):
            for stage in stages:
                for walk in walks:
                    walk.go_on()
                    # For a lock that it holds another one would wait for ever.
                    lock = held_lock(walk.gr_frame)
                    if lock or walk.halt is None or not walk.stands_before(stage.first):
                        return None
                    cost += sum(t.nbytes for t in tensors((walk.halt.args, walk.halt.keywords)))
            paused = [_ended(walk) for walk in walks]
    except DataError:
        return None
    finally:
        for walk in walks:
            walk.stop()
    same = all(difference(a, b) <= tolerance for a, b in zip(plain, paused, strict=True))
    return cost if same else None


def _ended(walk: Walk) -> list[torch.Tensor]:
    return mark(walk.go_on())


class _Pauses:
    """Halts walks before the first layer of a stage, and holds the others' inputs against it."""

    def __init__(self, unit: Unit, stages: Sequence[Stage]) -> None:
        self._unit = unit
        self._first = {layer.name: stage.first for stage in stages for layer in stage.layers}
        self._given: dict[tuple[Walk, Layer], tuple[weakref.ref[torch.Tensor], int]] = {}
        self._lends = lending(unit)

    def note(self, layer: Layer, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        walk = greenlet.getcurrent()
        first = self._first[layer.name]
        if not isinstance(walk, Walk) or first is None:
            return
        given = input_of(layer, args, keywords)
        known = self._given.get((walk, first))
        if layer is first and known is None:
            # Weakly: a pass lets go of an input once the layers have it.
            self._given[walk, first] = weakref.ref(given), version_of(given)
            walk.parent.switch(Halt(self._unit, args, keywords, self._lends(), before=layer))
        elif (
            layer is first
            or known is None
            or known[0]() is not given
            or known[1] != version_of(given)
        ):
            self._refuse(layer, first)

    def _refuse(self, layer: Layer, first: Layer) -> None:
        what = "is called again" if layer is first else f"is not given what {first.name!r} is"
        raise DataError(
            f"layer {layer.name!r} {what} for one of the samples, as it is not for the first ones, "
            "so that its moments lack a part; put this sample first, or leave stages away"
        )
