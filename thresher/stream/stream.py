"""The stream: all samples go through a model unit by unit, whatever the visitor does to it."""

from __future__ import annotations

__all__ = ["Stream", "Visit"]

import functools
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .passes import calibrating
from .precision import Precision
from .proof import Order, prove
from .shelf import Shelf
from .source import Source
from .units import Unit
from .walk import Walk, call_on_copy, halting


@dataclass
class Visit:
    """One unit, with its weights and with every sample waiting before it.

    Parameters
    ----------
    index : int
        Its place in the order in which units run.
    unit : Unit
        What is visited. It may be changed; the samples then go on through what it has become.
    """

    index: int
    unit: Unit
    _stream: Stream = field(repr=False)

    def run(self) -> None:
        """Send every sample through the unit as it is now, to be watched; they stay before it."""
        self._stream.rehearse(self.unit)


class Stream:
    """Sends samples through a model, unit by unit in the order in which the model runs them.

    Parameters
    ----------
    source : Source
        The model.
    units : sequence of Unit
        In any order.
    samples : sequence
        Model inputs, the same ones whenever they are iterated; none to visit the units without
        data, in the order given.
    precision : Precision, optional
        Of forward passes, by default float32. That weights are held in a longer dtype is the
        source's matter.
    spill : Path, optional
        Folder for the samples' states, which are otherwise in memory.
    order : Order, optional
        What an earlier stream over the same model found; by default it is found and proved.

    Attributes
    ----------
    order : Order
    """

    def __init__(
        self,
        source: Source,
        units: Sequence[Unit],
        samples: Sequence[Any],
        *,
        precision: Precision | None = None,
        spill: Path | None = None,
        order: Order | None = None,
    ) -> None:
        self.source = source
        self.samples = samples
        self._precision = precision or Precision()
        self._shelf = Shelf(spill, source.model)
        self._walks: list[Walk] = []
        if order is None:
            order = self._find_order(units)
        by_name = {unit.name: unit for unit in units}
        self.order = order
        self.units = [by_name[name] for name in order.units]

    def without_samples(self) -> Stream:
        """Return a stream that visits the same units in the same order, without data."""
        return Stream(self.source, self.units, [], precision=self._precision, order=self.order)

    def visits(self, start: int = 0) -> Generator[Visit]:
        """Visit the units from the one at `start` on; the samples go through all of them.

        Parameters
        ----------
        start : int
            Units before it are run as they are, to go on with a run that was stopped.

        Yields
        ------
        Visit
        """
        with ExitStack() as stack:
            if self.samples:
                self._begin(stack)
            for index, unit in enumerate(self.units):
                with self.source.loaded(unit):
                    if index >= start:
                        yield Visit(index, unit, self)
                    # After the last unit there is nothing left to see, and a costly head to run.
                    if index + 1 == len(self.units):
                        return
                    self._advance(unit)
                self._catch_up(self.units[: index + 1])

    def rehearse(self, unit: Unit) -> None:
        """Run a unit on copies of what waits before it, or the whole model where it must be."""
        if unit.name in self.order.whole:
            others = [u for u in self.units if u.name != unit.name]
            with self.source.on_demand(others):
                for sample in self.samples:
                    with self._rounding():
                        call_on_copy(self.source.model, sample)
            return
        for index, walk in self._waiting(unit):
            assert walk.halt is not None
            self._shelf.restore(index)
            args, keywords = walk.halt.copies()
            self._shelf.put(index, walk)
            with self._rounding():
                unit.module(*args, **keywords)

    def _find_order(self, units: Sequence[Unit]) -> Order:
        if not self.samples:
            return Order([unit.name for unit in units], frozenset())
        with calibrating(self.source.model), self.source.opened(units), self._rounding():
            return prove(self.source, units, self.samples, self._precision.passes)

    def _begin(self, stack: ExitStack) -> None:
        model = self.source.model
        stack.enter_context(calibrating(model))
        stack.enter_context(self.source.opened(self.units))
        stack.enter_context(halting(self.units))
        stack.callback(self._end)
        self._walks = [Walk(functools.partial(call_on_copy, model, each)) for each in self.samples]
        for index, walk in enumerate(self._walks):
            self._go_on(index, walk)

    def _end(self) -> None:
        for index, walk in enumerate(self._walks):
            self._shelf.restore(index)
            walk.stop()
        self._walks = []

    def _waiting(self, unit: Unit) -> Iterator[tuple[int, Walk]]:
        for index, walk in enumerate(self._walks):
            if walk.halt is not None and walk.halt.unit is unit:
                yield index, walk

    def _advance(self, unit: Unit) -> None:
        for index, walk in self._waiting(unit):
            self._go_on(index, walk)

    def _catch_up(self, done: Sequence[Unit]) -> None:
        """Take samples through units that were visited already and are called again."""
        known = {unit.name for unit in done}
        while any(w.halt is not None and w.halt.unit.name in known for w in self._walks):
            for unit in done:
                if any(True for _ in self._waiting(unit)):
                    with self.source.loaded(unit):
                        self._advance(unit)

    def _go_on(self, index: int, walk: Walk) -> None:
        self._shelf.restore(index)
        with self._rounding():
            walk.go_on()
        if walk.halt is not None:
            self._shelf.put(index, walk)

    def _rounding(self) -> AbstractContextManager[None]:
        kinds = {parameter.device.type for parameter in self.source.model.parameters()}
        return self._precision.rounding(torch.device("cuda" if "cuda" in kinds else "cpu"))
