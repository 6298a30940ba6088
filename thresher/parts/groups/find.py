"""Coupled groups: which slices of which parameters can only be removed together."""

from __future__ import annotations

__all__ = ["Coupled", "Group", "Member", "find_groups"]

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from ...core.errors import LayerError
from .axes import Axis
from .rules import rule_of
from .trace import Trace


@dataclass(frozen=True)
class Member:
    """Slices of one axis of a parameter or buffer.

    Parameters
    ----------
    parameter : str
        Path in the module.
    axis : int
        The parameter's axis.
    indices : array of int64, shape (units, slices)
        By unit of the group, the indices that go with it.
    consumes : bool
        Whether the axis is summed over when the parameter is multiplied: the columns of a Linear,
        not its rows.
    """

    parameter: str
    axis: int
    indices: np.ndarray
    consumes: bool


@dataclass(frozen=True)
class Group:
    """Units that can be removed one by one, each with all of its slices.

    Parameters
    ----------
    name : str
        The first parameter and axis that it is part of, such as ``"fc1.weight[0]"``, with the
        range where it is not all of the axis.
    size : int
        Number of units.
    members : tuple of Member
        What a unit is made of.
    axis : Axis
        The free axis whose indices the units are.
    step : int, default 1
        How many units go at a time, where the module's kernels want widths of some multiple.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    axis: Axis = field(repr=False, compare=False)
    step: int = 1

    @property
    def consumers(self) -> tuple[Member, ...]:
        """The members that sum over the units."""
        return tuple(member for member in self.members if member.consumes)

    @property
    def producers(self) -> tuple[Member, ...]:
        """The members that the units come from."""
        return tuple(member for member in self.members if not member.consumes)


@dataclass(frozen=True)
class Coupled:
    """What a pass showed of a module.

    Parameters
    ----------
    groups : tuple of Group
        In the order of their first parameters.
    pinned : dict of str to str
        By parameter and axis, such as ``"fc2.weight[0]"``, why it stays whole, or the part of it
        that is in no group.
    unreached : tuple of str
        Parameters that the pass did not read.
    trace : Trace
    """

    groups: tuple[Group, ...]
    pinned: Mapping[str, str]
    unreached: tuple[str, ...]
    trace: Trace = field(repr=False, compare=False)

    def __getitem__(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def masks(self, removed: Mapping[str, Sequence[int]]) -> dict[Axis, np.ndarray]:
        """Return what stays of the free axes.

        Parameters
        ----------
        removed : mapping of str to sequence of int
            Units to remove, by group.

        Raises
        ------
        LayerError
            If there is no such group or unit, or nothing of a group would be left.
        """
        by_name = {group.name: group for group in self.groups}
        masks = {}
        for name, units in removed.items():
            group = by_name.get(name)
            if group is None:
                raise LayerError(f"there is no group {name!r} of coupled slices")
            keep = np.ones(group.size, dtype=bool)
            for unit in units:
                if not 0 <= unit < group.size:
                    raise LayerError(f"group {name!r} has {group.size} units, and no unit {unit}")
                keep[unit] = False
            if (~keep).sum() % group.step:
                raise LayerError(
                    f"{int((~keep).sum())} units of group {name!r} cannot go: the module runs only "
                    f"where a multiple of {group.step} goes"
                )
            if not keep.any():
                raise LayerError(f"all {group.size} units of group {name!r} would go; leave one")
            masks[group.axis] = keep
        return masks

    def weights(self, parameters: Iterable[str], removed: Mapping[str, Sequence[int]]) -> int:
        """Return how many weights of some parameters stay.

        Parameters
        ----------
        parameters : iterable of str
        removed : mapping of str to sequence of int
            Units to remove, by group.
        """
        masks = self.masks(removed)
        axes = (self.trace.axes[name] for name in parameters)
        return sum(math.prod(int(axis.kept(masks).sum()) for axis in each) for each in axes)

    def kept(self, removed: Mapping[str, Sequence[int]]) -> dict[str, list[np.ndarray]]:
        """Return by parameter which indices of each axis stay, where not all of them do."""
        masks = self.masks(removed)
        found = {}
        for name, axes in self.trace.axes.items():
            kept = [axis.kept(masks) for axis in axes]
            if not all(each.all() for each in kept):
                found[name] = kept
        return found


def find_groups(module: nn.Module, run: Callable[[nn.Module], Any], sample: Any) -> Coupled:
    """Find the coupled groups of a module from one pass of it.

    Parameters
    ----------
    module : nn.Module
        Any module, in evaluation mode.
    run : callable
        Calls a module once on `sample`, without gradients, and returns its output.
    sample : Any
        What it is called with: tensors, in lists, tuples and mappings.

    Returns
    -------
    Coupled
        With any units of any groups removed from every member, the module works and gives what
        it gives with them set to zero. What meets an operator that is not understood stays whole.

    Raises
    ------
    LayerError
        If the module's forward branches on values that it computes: another input might take
        another way.
    """
    trace = Trace(module, rule_of)
    trace.give(sample)
    trace.run(lambda: run(module))
    if trace.branches:
        raise LayerError(
            f"{type(module).__name__} reads a value that it computed, at {trace.branches[0]}, and "
            "goes on by it: another input may take another way, in which other slices go "
            "together. Choose with torch.where, or prune the parts before and after it apart"
        )
    unreached = tuple(name for name in trace.axes if name not in trace.reached)
    _pin_unreached(trace, unreached)
    groups = _groups(trace)
    return Coupled(groups, _pinned(trace, groups), unreached, trace)


def _pin_unreached(trace: Trace, unreached: Sequence[str]) -> None:
    """Pin what may also meet parameters that the pass did not read.

    Slices that all lie within a module which holds none of these parameters cannot meet them.
    """
    for name in unreached:
        for axis in trace.axes[name]:
            axis.pin("the pass does not read it")
    parameters = [name for name in unreached if len(trace.axes[name])]
    if not parameters:
        return
    places: dict[Axis, list[str]] = {}
    for name, axes in trace.axes.items():
        for axis in axes:
            for free in axis.free():
                places.setdefault(free, []).append(name)
    for free, names in places.items():
        common = _common(names)
        for other in parameters:
            sizes = [axis.size for axis in trace.axes[other]]
            inside = not common or other.startswith(common + ".")
            wide = any(size % free.size == 0 for size in sizes)
            if inside and wide and free.size > 1:
                free.pin(f"it may meet {other}, which the pass does not read")


def _common(names: Sequence[str]) -> str:
    paths = [name.split(".")[:-1] for name in names]
    common = []
    for steps in zip(*paths, strict=False):
        if len(set(steps)) > 1:
            break
        common.append(steps[0])
    return ".".join(common)


def _groups(trace: Trace) -> tuple[Group, ...]:
    members: dict[Axis, list[Member]] = {}
    names: dict[Axis, str] = {}
    for parameter, axes in trace.axes.items():
        for index, axis in enumerate(axes):
            for free in dict.fromkeys(axis.free()):
                if free.pinned or free.size < 2 or not free.consumed:
                    continue
                indices = _indices(axis, free)
                consumes = id(axis) in trace.columns
                members.setdefault(free, []).append(Member(parameter, index, indices, consumes))
                if free not in names:
                    names[free] = _named(f"{parameter}[{index}]", axis, indices, names.values())
    return tuple(
        Group(names[free], free.size, tuple(found), free)
        for free, found in members.items()
        if any(member.consumes for member in found) and any(not m.consumes for m in found)
    )


def _named(axis_name: str, axis: Axis, indices: np.ndarray, taken: Iterable[str]) -> str:
    whole = indices.size == axis.size
    name = axis_name if whole else f"{axis_name}[{indices.min()}:{indices.max() + 1}]"
    # Heads and what is within each of them are both all of an axis.
    count = sum(1 for other in taken if other.partition("#")[0] == name)
    return f"{name}#{count + 1}" if count else name


def _indices(axis: Axis, free: Axis) -> np.ndarray:
    """Return the indices of an axis that go with each unit of a free one, (units, slices)."""
    if axis.same is free:
        return np.arange(free.size)[:, np.newaxis]
    labels = np.zeros(free.size, dtype=bool)
    found = []
    for unit in range(free.size):
        labels[:] = True
        labels[unit] = False
        found.append(np.flatnonzero(~axis.kept({free: labels})))
    return np.stack(found)


def _pinned(trace: Trace, groups: Sequence[Group]) -> dict[str, str]:
    free = {group.axis for group in groups}
    found: dict[str, str] = {}
    for parameter, axes in trace.axes.items():
        for index, axis in enumerate(axes):
            for each in axis.free():
                if each not in free and each.size > 1:
                    reason = each.pinned or "nothing sums over it"
                    found.setdefault(f"{parameter}[{index}]", reason)
    return found
