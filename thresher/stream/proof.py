"""Proving that units may be calibrated one by one: on the two samples that are least alike."""

from __future__ import annotations

__all__ = ["Order", "prove", "tolerance_of"]

import contextlib
import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..core.errors import DataError
from .chance import chance
from .choice import extremes, most_different
from .hooks import Hooks
from .locks import held_lock
from .marks import Marks, difference, mark, marking
from .passes import HeadReachedError, ending_before_the_head
from .source import Source
from .surroundings import keeping, within
from .units import Unit, parts_of, sharing_units
from .walk import EntangledError, Walk, call_on_copy, halting

#: Largest relative difference that rounding explains, by the precision of a forward pass.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}

_DRAWS = (
    "Its layers' inputs depend on chance: the model draws random numbers in evaluation mode too. "
    "Let it draw only while it trains (F.dropout(..., training=self.training), and likewise "
    "stochastic depth and noise), or choose a method that needs no data, such as 'magnitude'"
)
_KEEPS = (
    "The model keeps something from one pass to the next, or depends on chance. Have its passes "
    "repeat each other, or choose a method that needs no data, such as 'magnitude'"
)


@dataclass(frozen=True)
class Order:
    """In which order a model's units run, and which need passes of the whole model.

    Parameters
    ----------
    units : list of str
        Names, by the first call; those that are never called come last.
    whole : frozenset of str
        Units that are called several times in a pass, or never, or share a weight with another
        place: their inputs are collected in passes of the whole model. All units, where passes
        cannot be halted side by side.
    """

    units: list[str]
    whole: frozenset[str]


def prove(
    source: Source,
    units: Sequence[Unit],
    samples: Sequence[Any],
    precision: torch.dtype,
) -> Order:
    """Find the order of the units, and prove that each can be run by itself.

    The first sample and the one that differs most from it go through the model as it is, then
    once more side by side, halting before every unit, which is first run on copies of its
    arguments as it is while calibrating. Every unit's arguments and what it returns must be
    those of the plain pass, and both runs must return the same. Otherwise all units are
    calibrated in passes of the whole model, with a warning, provided that such passes repeat
    each other.

    Parameters
    ----------
    source : Source
        The model.
    units : sequence of Unit
        In any order.
    samples : sequence
        Model inputs.
    precision : torch.dtype
        Of the forward passes; it sets the tolerance.

    Returns
    -------
    Order

    Raises
    ------
    DataError
        If a unit keeps something from one pass to the next, or depends on chance.
    """
    tolerance = tolerance_of(precision)
    other = most_different(samples)
    trial = _Trial(source, units, samples, [0] if other is None else [0, other], tolerance)
    found = Hooks(source.model.modules())
    try:
        return trial.in_step()
    except (_UnfitError, EntangledError) as error:
        # A pass that is left in its middle may never come to where it removes its hooks.
        found.remove_others()
        order = trial.one_by_one()
        warnings.warn(
            f"{error}. All blocks are calibrated by passes of the whole model instead, which is "
            "slower",
            stacklevel=2,
        )
        return order


def tolerance_of(precision: torch.dtype) -> float:
    """Return the largest relative difference that rounding explains in forward passes."""
    return _TOLERANCE.get(precision, _TOLERANCE[torch.float32])


class _UnfitError(Exception):
    """Passes of this model cannot be halted side by side."""


@dataclass
class _Trial:
    source: Source
    units: Sequence[Unit]
    samples: Sequence[Any]
    chosen: list[int]
    tolerance: float
    _hooks: Hooks = field(init=False)
    #: Whether passes may end before the output head.
    _early: bool = True

    def in_step(self) -> Order:
        """Run the samples that were chosen side by side, and compare with plain passes."""
        plain: list[Marks] = []
        for index in self.chosen:
            plain.append(self._pass(index) if plain else self._first())
            # What the first pass adds may be there to stay.
            self._check_hooks(first=not plain[1:])
            for name in plain[-1].bypassed:
                raise _UnfitError(f"{name!r} is not called itself, but modules in it are")
        try:
            walked = self._walks()
        except (_UnfitError, EntangledError):
            raise
        except Exception as error:
            raise _UnfitError(f"passes that are halted side by side fail ({error})") from error
        for index, expected, marks in zip(self.chosen, plain, walked, strict=True):
            if (found := _difference(expected, marks, self.tolerance)) is not None:
                way = f"when {self._title(index)} goes through the model unit by unit"
                raise _UnfitError(found.text(f"{way} than in a plain pass"))
        rest = [self._pass(index) for index in extremes(self.samples, self.chosen)]
        return self._order([*plain, *rest])

    def one_by_one(self) -> Order:
        """Run passes as a run without walks does, of which the first must repeat itself."""
        before = chance()
        first, *others, again = (self._pass(n, whole=True) for n in [*self.chosen, 0])
        if (found := _difference(first, again, self.tolerance)) is not None:
            what = f"two passes of the first sample differ: {found.text('the second time')}"
            raise DataError(f"{what}. {_DRAWS if chance() != before else _KEEPS}")
        rest = [self._pass(n, whole=True) for n in extremes(self.samples, self.chosen)]
        order = self._order([first, *others, *rest])
        return Order(order.units, frozenset(order.units))

    def _first(self) -> Marks:
        """Run the first sample, and see whether units run after the output head."""
        early = self._pass(0)
        if len(early.reached) == len(self.units):
            return early
        whole = self._pass(0, whole=True)
        self._early = len(whole.reached) == len(early.reached)
        return early if self._early else whole

    def _order(self, passes: Sequence[Marks]) -> Order:
        counts = [marks.counts() for marks in passes]
        most: dict[str, int] = {}
        for each in counts:
            for name, count in each.items():
                most[name] = max(count, most.get(name, 0))
        order = [*most, *(unit.name for unit in self.units if unit.name not in most)]
        several = {name for name in order if most.get(name, 0) != 1}
        return Order(order, frozenset(sharing_units(self.units) | several))

    def _title(self, index: int) -> str:
        return f"sample {index + 1} of {len(self.samples)}" if index else "the first sample"

    def _pass(self, index: int, whole: bool = False) -> Marks:
        with contextlib.ExitStack() as stack:
            stack.enter_context(keeping())
            stack.enter_context(self.source.on_demand(self.units))
            noting = stack.enter_context(marking(self.units))
            if not whole:
                stack.enter_context(contextlib.suppress(HeadReachedError))
                stack.enter_context(self._ending())
            call_on_copy(self.source.model, self.samples[index])
        return noting.into

    def _ending(self) -> contextlib.AbstractContextManager[None]:
        if not self._early:
            return contextlib.nullcontext()
        return ending_before_the_head(self.source.model, parts_of(self.units))

    def _walks(self) -> list[Marks]:
        computed: dict[str, list[torch.Tensor]] = {}

        def returned(unit: Unit, output: Any) -> None:
            computed[unit.name] = mark(output)

        with contextlib.ExitStack() as stack:
            stack.enter_context(self.source.on_demand([]))
            stack.enter_context(halting(self.units, returned))
            noting = stack.enter_context(marking(self.units))
            stack.enter_context(self._ending())
            self._hooks = Hooks(self.source.model.modules())
            walks = []
            for index in self.chosen:
                sample = self.samples[index]
                walks.append(Walk(functools.partial(call_on_copy, self.source.model, sample)))
                stack.callback(walks[-1].stop)
            passes = [(walk, Marks()) for walk in walks]
            for walk, marks in passes:
                noting.into = marks
                self._go_on(walk)
            while (unit := next((w.halt.unit for w in walks if w.halt), None)) is not None:
                waiting = [each for each in passes if each[0].is_at(unit)]
                noting.into = Marks()  # of no pass
                with self.source.loaded(unit):
                    rehearsed = [_rehearsed(walk) for walk, _ in waiting]
                    for (walk, noting.into), before in zip(waiting, rehearsed, strict=True):
                        self._go_on(walk)
                        _check_repeatable(unit, before, computed.pop(unit.name), self.tolerance)
        return [marks for _, marks in passes]

    def _go_on(self, walk: Walk) -> None:
        try:
            walk.go_on()
        except HeadReachedError:
            walk.halt = None
        if walk.halt is None:
            return
        self._check_hooks()
        lock = held_lock(walk.gr_frame) if len(self.chosen) > 1 else None
        if lock is not None:
            raise _UnfitError(f"the lock {lock!r} is held while {walk.halt.unit.name!r} is called")

    def _check_hooks(self, first: bool = False) -> None:
        if first:
            self._hooks = Hooks(self.source.model.modules())
        elif self._hooks.changed():
            raise _UnfitError("the model puts hooks on its modules for the length of a pass")


def _rehearsed(walk: Walk) -> list[torch.Tensor]:
    assert walk.halt is not None
    with within(walk.settings):
        args, keywords = walk.halt.copies()
        # Without the hooks, which the arguments have been through already.
        return mark(walk.halt.unit.module.forward(*args, **keywords))


def _check_repeatable(
    unit: Unit, rehearsed: list[torch.Tensor], returned: list[torch.Tensor], tolerance: float
) -> None:
    found = difference(rehearsed, returned)
    if found > tolerance:
        raise _UnfitError(
            f"{unit.name!r} gives another output when it is run again on the same input (relative "
            f"difference {found:.1e}): it keeps something from one call to the next or draws at "
            "random"
        )


@dataclass(frozen=True)
class _Difference:
    unit: str
    verb: str
    size: float
    calls: tuple[int, int]

    def text(self, when: str) -> str:
        return (
            f"{self.unit!r} {self.verb} something else {when} (relative difference "
            f"{self.size:.1e}, calls {self.calls[1]} for {self.calls[0]})"
        )


def _difference(expected: Marks, found: Marks, tolerance: float) -> _Difference | None:
    """Return where two passes part: the first unit that is given, or gives, something else."""
    for name in expected.given:
        for verb, marks, others in (
            ("is given", expected.given[name], found.given.get(name, [])),
            ("gives", expected.made[name], found.made.get(name, [])),
        ):
            pairs = zip(marks, others, strict=False)
            worst = max((difference(a, b) for a, b in pairs), default=0.0)
            if len(marks) != len(others) or worst > tolerance:
                return _Difference(name, verb, worst, (len(marks), len(others)))
    return None
