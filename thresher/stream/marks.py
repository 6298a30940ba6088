"""Marks: of every call of a unit, what is needed to tell whether another call was the same."""

from __future__ import annotations

__all__ = ["Marks", "difference", "mark", "marking"]

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .units import Unit

_SAMPLED = 4096


class Marks:
    """Of one pass, by the names of units in the order of their first calls.

    Attributes
    ----------
    given, made : dict of str to list
        A mark for every call: of the arguments, and of what it returned.
    """

    def __init__(self) -> None:
        self.given: dict[str, list[list[torch.Tensor]]] = defaultdict(list)
        self.made: dict[str, list[list[torch.Tensor]]] = defaultdict(list)

    def counts(self) -> dict[str, int]:
        """Return how often every unit was called."""
        return {name: len(calls) for name, calls in self.given.items()}


class Noting:
    """Where the calls of the pass that is running are noted; `into` is set by who runs it."""

    def __init__(self) -> None:
        self.into = Marks()


@contextmanager
def marking(units: Sequence[Unit]) -> Iterator[Noting]:
    """Note what every unit is called with and what it returns, while the context lasts."""
    noting = Noting()
    handles: list[Any] = []
    for unit in units:
        given, made = _hooks(noting, unit.name)
        handles.append(unit.module.register_forward_pre_hook(given, with_kwargs=True, prepend=True))
        handles.append(unit.module.register_forward_hook(made))
    try:
        yield noting
    finally:
        for handle in handles:
            handle.remove()


def _hooks(noting: Noting, name: str) -> tuple[Any, Any]:
    def given(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        noting.into.given[name].append(mark((args, keywords)))

    def made(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        noting.into.made[name].append(mark(output))

    return given, made


@torch.no_grad()
def mark(value: Any) -> list[torch.Tensor]:
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
