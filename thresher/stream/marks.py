"""Marks: of every call of a unit, what is needed to tell whether another call was the same."""

from __future__ import annotations

__all__ = ["Marks", "difference", "mark", "marking"]

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from .calls import Forward, forward_within
from .surroundings import check_not_transformed
from .units import Unit

_SAMPLED = 4096


class Marks:
    """Of one pass, by the names of units in the order of their first calls.

    Attributes
    ----------
    given, made : dict of str to list
        A mark for every call: of the arguments, and of what it returned.
    reached : dict of str to None
        Units of which a layer was called, though perhaps not the unit itself, in that order.
    """

    def __init__(self) -> None:
        self.given: dict[str, list[list[torch.Tensor]]] = defaultdict(list)
        self.made: dict[str, list[list[torch.Tensor]]] = defaultdict(list)
        self.reached: dict[str, None] = {}

    @property
    def bypassed(self) -> list[str]:
        """Units of which only parts were called."""
        return [name for name in self.reached if name not in self.given]

    def counts(self) -> dict[str, int]:
        """Return how often every unit that was reached was called, in the order of running."""
        return {name: len(self.given.get(name, ())) for name in self.reached}


class Noting:
    """Where the calls of the pass that is running are noted; `into` is set by who runs it."""

    def __init__(self) -> None:
        self.into = Marks()


@contextmanager
def marking(units: Sequence[Unit]) -> Iterator[Noting]:
    """Note what every unit is called with and what it returns, while the context lasts."""
    noting = Noting()
    with ExitStack() as stack:
        for unit in units:
            reach = functools.partial(_reaching_forward, noting, unit.name)
            for part in _parts_with_layers(unit):
                stack.enter_context(forward_within(part, reach))
            wrap = functools.partial(_noting_forward, noting, unit.name)
            stack.enter_context(forward_within(unit.module, wrap))
        yield noting


def _parts_with_layers(unit: Unit) -> Iterator[nn.Module]:
    holders = {id(m) for layer in unit.layers for m in (layer.module, *layer.users)}
    for part in unit.module.modules():
        if part is not unit.module and id(part) in holders:
            yield part


def _reaching_forward(noting: Noting, name: str, forward: Forward) -> Forward:
    def reach(*args: Any, **keywords: Any) -> Any:
        noting.into.reached.setdefault(name)
        return forward(*args, **keywords)

    return reach


def _noting_forward(noting: Noting, name: str, forward: Forward) -> Forward:
    def note(*args: Any, **keywords: Any) -> Any:
        check_not_transformed(name)
        if name not in noting.into.given:
            # From its own first call on, whoever has used a part of it before.
            noting.into.reached.pop(name, None)
            noting.into.reached[name] = None
        noting.into.given[name].append(mark((args, keywords)))
        output = forward(*args, **keywords)
        noting.into.made[name].append(mark(output))
        return output

    return note


@torch.no_grad()
def mark(value: Any) -> list[torch.Tensor]:
    """Return a sample of every tensor's values, small enough to keep for a whole pass."""
    if isinstance(value, torch.Tensor):
        if value.is_nested:
            return [each for one in value.unbind() for each in mark(one)]
        flat = value.detach().flatten()
        step = max(1, flat.numel() // _SAMPLED)
        whole = flat.sum(dtype=torch.float64) if not flat.is_complex() else flat.abs().sum()
        sizes = torch.tensor([*value.shape], dtype=torch.float64)
        some = torch.view_as_real(flat[::step]) if flat.is_complex() else flat[::step]
        return [torch.cat([sizes, some.double().cpu().flatten(), whole.reshape(1).double().cpu()])]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return [each for one in value for each in mark(one)]
    return []


def difference(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    """Return the largest relative difference of two calls' marks, infinite for other shapes."""
    if [m.shape for m in left] != [m.shape for m in right]:
        return float("inf")
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        same = (a == b) | (a.isnan() & b.isnan())
        scale = a[a.isfinite()].abs().amax() if bool(a.isfinite().any()) else a.new_ones(())
        gap = torch.where(same, torch.zeros_like(a), (a - b).abs())
        worst = max(worst, float(gap.nan_to_num(nan=torch.inf).amax() / (scale + 1e-30)))
    return worst
