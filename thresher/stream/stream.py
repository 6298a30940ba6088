"""The stream: all samples go through a model unit by unit, whatever the visitor does to it."""

from __future__ import annotations

__all__ = ["Stream"]

import functools
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.device import free_memory
from ..core.errors import DataError
from .ahead import Ahead, check_complete
from .attention import WatchingAttention
from .choice import most_different
from .collect import Call, Stage
from .current import running
from .dense import DenseNotes
from .hooks import Hooks, Registered
from .passes import (
    EnoughSeenError,
    HeadReachedError,
    calibrating,
    ending_before_the_head,
)
from .pauses import cost_of_pauses
from .precision import Precision
from .proof import Order, prove, tolerance_of
from .ranks import check_agreement, rank
from .shelf import Shelf
from .source import Source
from .surroundings import keeping, within
from .units import Unit, parts_of
from .visit import Visit
from .walk import EntangledError, Walk, call_on_copy, halting

#: What samples have gone through: units as they were left, or as they were found.
_PRUNED, _DENSE = "pruned", "dense"
#: Most of the free memory that samples take up which wait inside a unit.
_SHARE_OF_FREE = 0.25


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
    dense : bool, default False
        Whether the samples also go through the units as they were found, and every visit comes
        with what that gave the unit's layers. Where a unit is called several times in a pass,
        there is no such path, and a warning says so.
    attention : bool, default False
        Whether the attention that tokens receive on the dense path is noted too.
    scratch : Path, optional
        Folder for what is noted of the dense path, and for the samples' states on it, which wait
        while a unit is pruned. By default notes are among the system's temporary files, and states
        in memory.
    order : Order, optional
        What an earlier stream over the same model found; by default it is found and proved.

    Attributes
    ----------
    order : Order
        Units may come to need passes of the whole model while samples go on.
    """

    def __init__(
        self,
        source: Source,
        units: Sequence[Unit],
        samples: Sequence[Any],
        *,
        precision: Precision | None = None,
        spill: Path | None = None,
        dense: bool = False,
        attention: bool = False,
        scratch: Path | None = None,
        order: Order | None = None,
    ) -> None:
        self.source = source
        self.samples = samples
        self._precision = precision or Precision()
        apart = None if scratch is None else scratch / f"dense-states-{rank()}"
        self._shelves = {
            _PRUNED: Shelf(spill, source.model),
            _DENSE: Shelf(apart if spill is None else spill / _DENSE, source.model),
        }
        self._shelf_of: dict[Walk, Shelf] = {}
        self._paths = (_PRUNED, _DENSE) if dense else (_PRUNED,)
        self._attention, self._scratch = attention, scratch
        self._around: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._walks: dict[str, list[Walk]] = {}
        self._sample_of: dict[Walk, Any] = {}
        self._hooks: dict[str, Hooks] = {}
        if order is None:
            order = self._find_order(units)
        check_agreement(order.units, "the order of units")
        by_name = {unit.name: unit for unit in units}
        self.order = order
        self.units = [by_name[name] for name in order.units]
        self._ahead = Ahead(source, self.units, samples, self._pass)
        self._drop_path_of_whole_passes()

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
                self._look_ahead(unit)
                if index < start and self.has_dense_path:
                    with self.source.as_found(unit):
                        self._advance(unit, _DENSE)
                with self.source.loaded(unit), ExitStack() as until_left:
                    if index >= start:
                        with self._dense_pass(unit) as notes:
                            yield Visit(index, unit, self, notes, until_left)
                    if index + 1 == len(self.units):
                        stack.enter_context(self._ending())
                    self._advance(unit, _PRUNED)
                self._catch_up(self.units[: index + 1])

    @property
    def has_dense_path(self) -> bool:
        """Whether the samples also go through the units as they were found."""
        return _DENSE in self._paths

    def rehearse(self, unit: Unit, most: int | None) -> None:
        """Run a unit on copies of what waits before it, or the whole model where it must be."""
        count = min(len(self.samples), len(self.samples) if most is None else most)
        if unit.name in self.order.whole:
            others = [u for u in self.units if u.name != unit.name]
            with self.source.on_demand(others):
                for index, sample in zip(range(count), self.samples, strict=False):
                    with suppress(EnoughSeenError):
                        self._pass(sample, index)
            return
        # There are none where passes could not be halted.
        for index, walk in enumerate(self._walks.get(_PRUNED, [])[:count]):
            if walk.is_at(unit):
                self._rehearse(index, walk)

    def may_pause(self, unit: Unit, stages: Sequence[Stage]) -> bool:
        """Return whether samples may wait inside a unit, which the most different ones show."""
        shelf = self._shelves[_PRUNED]
        if shelf.on_disk or any(stage.first is None for stage in stages):
            return False
        walks = self._walks.get(_PRUNED, [])
        other = most_different(self.samples)
        tried = [(index, walks[index]) for index in ([0] if other is None else [0, other])]
        if not all(walk.is_at(unit) for _, walk in tried):
            return False

        def begin() -> list[Walk]:
            copies = [Walk(functools.partial(self._on_copy, *each)) for each in tried]
            for copy in copies:
                copy.go_on()
            return copies

        with self._rounding(unit.module), self._hooks[unit.name].hidden():
            tolerance = tolerance_of(self._precision.passes)
            cost = cost_of_pauses(unit, stages, begin, tolerance)
        free = free_memory(next(unit.module.parameters()).device)
        return cost is not None and cost * len(walks) / len(tried) <= _SHARE_OF_FREE * free

    def calls(self, unit: Unit, stage: Stage) -> Iterator[Call]:
        """Send samples on; see :meth:`Visit.calls`."""
        for index, walk in enumerate(self._walks.get(_PRUNED, [])):
            if not walk.is_at(unit):
                continue
            self._go_on(walk)
            if walk.halt is None or not walk.stands_before(stage.first):
                raise DataError(
                    f"sample {index + 1} of {len(self.samples)} does not come to layer "
                    f"{stage.layers[0].name!r} as the first ones do, so that the block is pruned "
                    "in part; put this sample first, or leave stages away"
                )
            with running(self._sample_of[walk], index):
                yield walk.halt.args, walk.halt.keywords

    @contextmanager
    def _dense_pass(self, unit: Unit) -> Iterator[DenseNotes | None]:
        """Send the samples on along the dense path, and note what the unit's layers are given."""
        if not self.has_dense_path:
            yield None
            return
        with closing(DenseNotes(self._scratch)) as notes:
            if self._attention:
                self._around = functools.partial(WatchingAttention, notes.received)
            last = unit is self.units[-1]
            with notes.noting(unit), self._ending() if last else nullcontext():
                self._advance(unit, _DENSE)
            self._around = nullcontext
            # Walks that could not be halted have left it incomplete.
            yield notes if self.has_dense_path else None

    def _ending(self) -> AbstractContextManager[None]:
        """Spare passes the output head, where nothing is left to see but calls of visited units."""
        return ending_before_the_head(self.source.model, parts_of(self.units))

    def _rehearse(self, index: int, walk: Walk) -> None:
        assert walk.halt is not None
        unit = walk.halt.unit
        # The hooks that the unit came with have made these arguments already.
        with ExitStack() as stack:
            stack.enter_context(suppress(EnoughSeenError))
            stack.enter_context(self._rounding(unit.module))
            stack.enter_context(self._hooks[unit.name].hidden())
            self._on_copy(index, walk)

    def _on_copy(self, index: int, walk: Walk) -> Any:
        """Run the unit that a sample's walk waits for on copies of its arguments."""
        assert walk.halt is not None
        if walk.halt.before is not None:
            raise RuntimeError(f"{walk.halt.unit.name!r} is left in its middle, and cannot begin")
        shelf = self._shelf_of[walk]
        shelf.restore(walk)
        args, keywords = walk.halt.copies()
        shelf.put(walk)
        with running(self._sample_of[walk], index), within(walk.settings):
            return walk.halt.unit.module(*args, **keywords)

    def _pass(self, sample: Any, index: int = 0) -> None:
        with keeping(), self._rounding():
            _call(self.source.model, sample, index)

    def _find_order(self, units: Sequence[Unit]) -> Order:
        if not self.samples:
            return Order([unit.name for unit in units], frozenset())
        with calibrating(self.source.model), self.source.opened(units), self._rounding():
            return prove(self.source, units, self.samples, self._precision.passes)

    def _begin(self, stack: ExitStack) -> None:
        model = self.source.model
        stack.enter_context(calibrating(model))
        stack.enter_context(self.source.opened(self.units))
        if self.order.whole.issuperset(self.order.units):
            return
        self._hooks = {unit.name: Hooks([unit.module]) for unit in self.units}
        # A unit may run after the output head.
        stack.enter_context(self.source.on_demand([]))
        stack.enter_context(halting(self.units, around=lambda: self._around()))
        stack.callback(self._end)
        for path in self._paths:
            numbered = enumerate(self.samples)
            calls = [functools.partial(_call, model, each, index) for index, each in numbered]
            walks = self._walks[path] = [Walk(forward) for forward in calls]
            self._sample_of |= dict(zip(walks, self.samples, strict=True))
            self._shelf_of |= dict.fromkeys(walks, self._shelves[path])
            for walk in walks:
                # None are left where an earlier one could not be halted.
                if self._walks:
                    self._go_on(walk)

    def _end(self) -> None:
        walks = self._every_walk()
        self._walks, self._sample_of, self._shelf_of = {}, {}, {}
        with ExitStack() as stack:
            for walk in walks:
                stack.callback(walk.stop)
        for shelf in self._shelves.values():
            shelf.clear()

    def _give_up(self, reason: str) -> None:
        """Stop halting passes; the units that are left are calibrated by whole ones."""
        self._end()
        self.order = Order(self.order.units, frozenset(self.order.units))
        self._drop_path_of_whole_passes()
        warnings.warn(
            f"{reason}. All blocks are calibrated by passes of the whole model from here on, "
            "which is slower",
            stacklevel=2,
        )

    def _drop_path_of_whole_passes(self) -> None:
        """Go on without the dense path where a unit is seen in passes of the whole model."""
        if self.has_dense_path and self.order.whole:
            self._paths = (_PRUNED,)
            warnings.warn(
                f"{sorted(self.order.whole)[0]!r} is called several times in a pass or shares a "
                "weight, so that no dense path runs beside the pruned one: what is pruned is not "
                "compared with what the dense model gives",
                stacklevel=2,
            )

    def _look_ahead(self, unit: Unit) -> None:
        walks = self._walks.get(_PRUNED, [])
        reason = None if unit.name in self.order.whole else self._ahead.out_of_order(unit, walks)
        if reason is not None:
            self._give_up(reason)

    def _every_walk(self) -> list[Walk]:
        return [walk for walks in self._walks.values() for walk in walks]

    def _waiting(self, unit: Unit, path: str) -> Iterator[Walk]:
        for walk in self._walks.get(path, ()):
            if walk.is_at(unit):
                yield walk

    def _advance(self, unit: Unit, path: str) -> None:
        for walk in self._waiting(unit, path):
            self._go_on(walk)

    def _catch_up(self, done: Sequence[Unit]) -> None:
        """Take samples through units that were visited already and are called again.

        Raises
        ------
        DataError
            If a unit was calibrated with a part of its calls.
        """
        known = {unit.name for unit in done}
        walks = self._walks.get(_PRUNED, [])
        while any(w.halt is not None and w.halt.unit.name in known for w in walks):
            check_complete(walks, known - self.order.whole)
            for unit in done:
                if any(True for _ in self._waiting(unit, _PRUNED)):
                    with self.source.loaded(unit):
                        self._advance(unit, _PRUNED)

    def _go_on(self, walk: Walk) -> None:
        shelf = self._shelf_of[walk]
        shelf.restore(walk)
        registered = Registered()
        try:
            with self._rounding(None if walk.halt is None else walk.halt.unit.module):
                walk.go_on()
        except HeadReachedError:
            walk.halt = None
        except EntangledError as error:
            self._give_up(str(error))
        if walk.halt is not None and registered.remain(self.source.model):
            self._end()
            # A pass that is left in its middle may never come to where it removes them.
            registered.remove(self.source.model)
            self._give_up("a sample's pass puts hooks on the model's modules")
        if walk.halt is not None:
            shelf.put(walk)

    def _rounding(self, runs: nn.Module | None = None) -> AbstractContextManager[None]:
        runs = self.source.model if runs is None else runs
        kinds = {parameter.device.type for parameter in runs.parameters()}
        return self._precision.rounding(torch.device("cuda" if "cuda" in kinds else "cpu"))


def _call(model: nn.Module, sample: Any, index: int) -> Any:
    """Call a model on a copy of a sample, which those who watch are told of."""
    with running(sample, index):
        return call_on_copy(model, sample)
