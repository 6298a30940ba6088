"""Proving that units may be calibrated one by one: on the first and the last sample."""

from __future__ import annotations

__all__ = ["Order", "prove"]

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.errors import DataError
from .source import Source
from .units import Unit, sharing_units
from .walk import Walk, call_on_copy, halting

_SAMPLED = 4096
#: Largest relative difference that rounding explains, by the precision of a forward pass.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}


@dataclass(frozen=True)
class Order:
    """In which order a model's units run, and which need passes of the whole model.

    Parameters
    ----------
    units : list of str
        Names, by the first call; those that are never called come last.
    whole : frozenset of str
        Units that are called several times in a pass, or never, or share a weight with another
        place: their inputs are collected in passes of the whole model.
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

    The first and the last sample go through the model as it is, then once more halting before
    every unit, which is first run on copies of its arguments as it is while calibrating. Every
    unit's arguments must be those of the plain pass, and both runs must return the same.

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
        If a unit keeps something from one call to the next, or depends on chance.
    """
    tolerance = _TOLERANCE.get(precision, _TOLERANCE[torch.float32])
    chosen = [samples[0]] if len(samples) == 1 else [samples[0], samples[-1]]
    calls: dict[str, list[int]] = defaultdict(list)
    for number, sample in enumerate(chosen):
        plain = _plain_pass(source, units, sample)
        walked = _walk(source, units, sample, tolerance)
        sample_name = "the first sample" if number == 0 else "the last sample"
        _compare(plain, walked, tolerance, sample_name)
        for name, marks in plain.items():
            calls[name].append(len(marks))
    order = [*calls, *(unit.name for unit in units if unit.name not in calls)]
    several = {name for name in order if max(calls.get(name, [0])) != 1}
    return Order(order, frozenset(sharing_units(units) | several))


Marks = dict[str, list[list[torch.Tensor]]]


@contextmanager
def _marking(units: Sequence[Unit]) -> Iterator[Marks]:
    """Note what every unit is called with while the context lasts."""
    marks: Marks = {}
    handles = []
    for unit in units:
        note = functools.partial(_note, marks, unit.name)
        handles.append(unit.module.register_forward_pre_hook(note, with_kwargs=True, prepend=True))
    try:
        yield marks
    finally:
        for handle in handles:
            handle.remove()


def _note(
    marks: Marks, name: str, module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    marks.setdefault(name, []).append(_mark((args, keywords)))


def _plain_pass(source: Source, units: Sequence[Unit], sample: Any) -> Marks:
    with contextlib.ExitStack() as stack:
        stack.enter_context(source.on_demand(units))
        marks = stack.enter_context(_marking(units))
        stack.enter_context(contextlib.suppress(_HeadReachedError))
        stack.enter_context(_ending_before_the_head(source, units))
        call_on_copy(source.model, sample)
    return marks


class _HeadReachedError(Exception):
    """Ends a pass whose remainder holds no unit."""


@contextmanager
def _ending_before_the_head(source: Source, units: Sequence[Unit]) -> Iterator[None]:
    """Spare a pass the output head, whose result is as wide as the vocabulary."""
    try:
        head = getattr(source.model, "get_output_embeddings", lambda: None)()
    except (NotImplementedError, AttributeError):
        head = None
    inside = {id(module) for unit in units for module in unit.module.modules()}
    if head is None or id(head) in inside:
        yield
        return

    def stop(*_: Any) -> None:
        raise _HeadReachedError

    handle = head.register_forward_pre_hook(stop, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def _walk(source: Source, units: Sequence[Unit], sample: Any, tolerance: float) -> Marks:
    with contextlib.ExitStack() as stack:
        stack.enter_context(source.on_demand([]))
        stack.enter_context(halting(units))
        marks = stack.enter_context(_marking(units))
        out = stack.enter_context(_returning(units))
        stack.enter_context(_ending_before_the_head(source, units))
        walk = Walk(lambda: call_on_copy(source.model, sample))
        try:
            walk.go_on()
            while (halt := walk.halt) is not None:
                with source.loaded(halt.unit):
                    args, keywords = halt.copies()
                    # Not through the hooks, which note the model's own calls.
                    rehearsed = _mark(halt.unit.module.forward(*args, **keywords))
                    try:
                        walk.go_on()
                    except _HeadReachedError:
                        walk.halt = None
                _check_repeatable(halt.unit, rehearsed, out.pop(halt.unit.name), tolerance)
        finally:
            walk.stop()
    return marks


@contextmanager
def _returning(units: Sequence[Unit]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Note what every unit returned last while the context lasts."""
    returned: dict[str, list[torch.Tensor]] = {}

    def note(name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        returned[name] = _mark(output)

    handles = [
        unit.module.register_forward_hook(functools.partial(note, unit.name)) for unit in units
    ]
    try:
        yield returned
    finally:
        for handle in handles:
            handle.remove()


def _check_repeatable(
    unit: Unit, rehearsed: list[torch.Tensor], returned: list[torch.Tensor], tolerance: float
) -> None:
    difference = _difference(rehearsed, returned)
    if difference > tolerance:
        raise DataError(
            f"{unit.name!r} gives another output when it is run again on the same input (relative "
            f"difference {difference:.1e}): it keeps something from one call to the next or draws "
            "at random, and cannot be calibrated; exclude its layers"
        )


def _compare(plain: Marks, walked: Marks, tolerance: float, sample: str) -> None:
    for name, marks in plain.items():
        others = walked.get(name, [])
        pairs = zip(marks, others, strict=False)
        difference = max((_difference(a, b) for a, b in pairs), default=0.0)
        if len(marks) != len(others) or difference > tolerance:
            raise DataError(
                f"{name!r} is given something else when {sample} goes through the model unit by "
                f"unit than in a plain pass (relative difference {difference:.1e}, calls "
                f"{len(others)} for {len(marks)}), so that it cannot be calibrated; exclude its "
                "layers"
            )


def _mark(value: Any) -> list[torch.Tensor]:
    """Return a sample of every tensor's values, small enough to keep for a whole pass."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().flatten()
        step = max(1, flat.numel() // _SAMPLED)
        whole = flat.sum(dtype=torch.float64) if not flat.is_complex() else flat.abs().sum()
        sizes = torch.tensor([*value.shape], dtype=torch.float64)
        some = torch.view_as_real(flat[::step]) if flat.is_complex() else flat[::step]
        return [torch.cat([sizes, some.double().cpu().flatten(), whole.reshape(1).double().cpu()])]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return [mark for each in value for mark in _mark(each)]
    return []


def _difference(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    if [m.shape for m in left] != [m.shape for m in right]:
        return float("inf")
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        same = (a == b) | (a.isnan() & b.isnan())
        scale = a[a.isfinite()].abs().amax() if bool(a.isfinite().any()) else a.new_ones(())
        gap = torch.where(same, torch.zeros_like(a), (a - b).abs())
        worst = max(worst, float(gap.nan_to_num(nan=torch.inf).amax() / (scale + 1e-30)))
    return worst
