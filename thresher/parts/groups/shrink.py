"""Removing units of coupled groups: every parameter really becomes smaller."""

from __future__ import annotations

__all__ = [
    "Setting",
    "Shrunk",
    "apply",
    "fit",
    "kind_of",
    "prove",
    "shrink",
    "silence",
    "silenced",
]

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from ...core.errors import LayerError
from .axes import Axis
from .find import Coupled, Group
from .trace import tensors_of

Run = Callable[[nn.Module], Any]
Removed = Mapping[str, Sequence[int]]
#: Settings of sizes that are tried where it is not clear which one is meant.
_TRIES = 16
#: How many units at a time are tried to be removed: kernels may want widths of a multiple.
_STEPS = (1, 4, 16)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A whole number of a module, or of its configuration, that says a size.

    Parameters
    ----------
    module : str
        Path of the module.
    kind : type
        Its class.
    name : str
        Of the attribute.
    value : int or tuple of int
        What it is to become.
    of_config : bool
        Whether it is one of the module's configuration.
    """

    module: str
    kind: type
    name: str
    value: Any
    of_config: bool = False


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """A module that became smaller.

    Parameters
    ----------
    module : nn.Module
    settings : tuple of Setting
        Numbers of its modules that say sizes, as they are now.
    """

    module: nn.Module
    settings: tuple[Setting, ...] = ()


def shrink(module: nn.Module, coupled: Coupled, removed: Removed, run: Run) -> Shrunk:
    """Remove some units of a module's groups from a copy of it.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    coupled : Coupled
        Its groups, see :func:`~thresher.parts.groups.find.find_groups`.
    removed : mapping of str to sequence of int
        Units to remove, by group.
    run : callable
        Calls a module on an example, without gradients, and returns its output.

    Returns
    -------
    Shrunk
        A copy with smaller parameters and buffers, and the numbers of its modules that say sizes,
        such as ``out_features``, changed with them. It gives what `module` gives with the removed
        slices set to zero. Parameters of which nothing goes are those of `module` itself.

    Raises
    ------
    LayerError
        If there is no such group or unit, or the module does not run with smaller parameters, or
        gives something else.
    """
    kept = coupled.kept(removed)
    # Smaller parameters are made below; the whole ones need not be in memory twice.
    small = copy.deepcopy(module, {id(p): p for p in module.parameters()})
    if not kept:
        return Shrunk(small)
    with silenced(module, kept):
        expected = tensors_of(run(module))
    _cut(small, coupled, kept)
    fit(small)
    problem = ""
    for chosen in itertools.islice(_choices(_settings(small, coupled, removed)), _TRIES):
        with _Tried(small, chosen):
            problem = _difference(small, run, expected)
        if not problem:
            needed = _needed(small, chosen, run, expected)
            apply(small, needed)
            fit(small)
            return Shrunk(small, tuple(needed))
    raise LayerError(
        f"{type(module).__name__} does not run without {_said(removed)}: {problem}; leave the "
        "group whole"
    )


def silence(module: nn.Module, coupled: Coupled, removed: Removed) -> None:
    """Set the slices of units to zero, in place, in all members of their groups.

    Parameters
    ----------
    module, coupled, removed
        See :func:`shrink`.
    """
    for tensor, axis, gone in _gone(module, coupled.kept(removed)):
        tensor.index_fill_(axis, gone, 0)


@contextmanager
def silenced(module: nn.Module, kept: Mapping[str, list[np.ndarray]]) -> Iterator[None]:
    """Set slices to zero while the context lasts.

    Parameters
    ----------
    module : nn.Module
    kept : mapping of str to list of array of bool
        By parameter, which indices of each axis stay, see :meth:`Coupled.kept`.
    """
    before = []
    try:
        for tensor, axis, gone in _gone(module, kept):
            before.append((tensor, axis, gone, tensor.index_select(axis, gone)))
            tensor.index_fill_(axis, gone, 0)
        yield
    finally:
        for tensor, axis, gone, values in reversed(before):
            tensor.index_copy_(axis, gone, values)


def _gone(
    module: nn.Module, kept: Mapping[str, list[np.ndarray]]
) -> Iterator[tuple[torch.Tensor, int, torch.Tensor]]:
    """Yield tensors, their axes, and which indices of them go."""
    for name, masks in kept.items():
        tensor = _tensor(module, name).data
        for axis, keep in enumerate(masks):
            if not keep.all():
                yield tensor, axis, torch.from_numpy(np.flatnonzero(~keep)).to(tensor.device)


def prove(module: nn.Module, coupled: Coupled, run: Run) -> Coupled:
    """Return the groups that a module works without, each kind of them having been tried.

    Parameters
    ----------
    module, coupled, run
        See :func:`shrink`.

    Returns
    -------
    Coupled
        The groups of kinds of which units could be removed, with how many go at a time; of the
        others, `pinned` says what went wrong.
    """
    kinds: dict[tuple[Any, ...], list[Group]] = {}
    for group in coupled.groups:
        kinds.setdefault(kind_of(module, group), []).append(group)
    steps: dict[str, int] = {}
    pinned = dict(coupled.pinned)
    for groups in kinds.values():
        step, problem = _step(module, coupled, groups[0], run)
        if step is not None:
            steps |= dict.fromkeys((group.name for group in groups), step)
            continue
        for group in groups:
            for member in group.members:
                pinned[f"{member.parameter}[{member.axis}]"] = problem
    left = tuple(
        dataclasses.replace(group, step=steps[group.name])
        for group in coupled.groups
        if group.name in steps
    )
    return dataclasses.replace(coupled, groups=left, pinned=pinned)


def _step(module: nn.Module, coupled: Coupled, group: Group, run: Run) -> tuple[int | None, str]:
    """Return how many units of a group can go at a time, or what went wrong with one."""
    problem = ""
    for step in _STEPS:
        few = [count for count in (step, 2 * step) if count < group.size]
        try:
            for count in few:
                shrink(module, coupled, {group.name: range(group.size - count, group.size)}, run)
        except LayerError as error:
            problem = problem or str(error)
        else:
            if few:
                return step, ""
    return None, problem


def kind_of(module: nn.Module, group: Group) -> tuple[Any, ...]:
    """Return what groups that do the same in different blocks have in common."""
    found = []
    for member in group.members:
        owner, _, leaf = member.parameter.rpartition(".")
        above = owner.rpartition(".")[0]
        kinds = type(module.get_submodule(above)), type(module.get_submodule(owner))
        found.append((kinds, owner.rpartition(".")[2], leaf, member.axis, member.indices.shape))
    return tuple(found)


def _said(removed: Removed) -> str:
    return ", ".join(f"{len(units)} units of {name}" for name, units in removed.items())


def _tensor(module: nn.Module, name: str) -> torch.Tensor:
    owner, _, leaf = name.rpartition(".")
    found: torch.Tensor = getattr(module.get_submodule(owner), leaf)
    return found


def _cut(module: nn.Module, coupled: Coupled, kept: Mapping[str, list[np.ndarray]]) -> None:
    for name, masks in kept.items():
        tensor = _tensor(module, name)
        data = tensor.detach()
        last = data.dim() == 4 and data.is_contiguous(memory_format=torch.channels_last)
        for axis, keep in enumerate(masks):
            if not keep.all():
                at = torch.from_numpy(np.flatnonzero(keep)).to(data.device)
                data = data.index_select(axis, at)
        last = last and not tensor.is_contiguous()
        data = data.contiguous(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )
        made: Any = data
        if isinstance(tensor, nn.Parameter):
            made = nn.Parameter(data, requires_grad=tensor.requires_grad)
        for alias in coupled.trace.names[name]:
            owner, _, leaf = alias.rpartition(".")
            holder = module.get_submodule(owner)
            place = holder._parameters if leaf in holder._parameters else holder._buffers
            place[leaf] = made


def _needed(
    module: nn.Module, settings: Sequence[Setting], run: Run, expected: Sequence[torch.Tensor]
) -> list[Setting]:
    """Return the settings that the module does not work without.

    A number may be a size by chance alone, such as a layer's index.
    """
    needed = list(settings)
    for kind in dict.fromkeys((s.kind, s.name, s.of_config) for s in settings):
        fewer = [s for s in needed if (s.kind, s.name, s.of_config) != kind]
        with _Tried(module, fewer):
            if not _difference(module, run, expected):
                needed = fewer
    return needed


def _settings(
    module: nn.Module, coupled: Coupled, removed: Removed
) -> tuple[list[Setting], list[Setting], list[Setting]]:
    """Return what numbers may become, from the sizes that their module's own forward met.

    First those of which it is clear, then those that equal several sizes, then those of
    configurations.
    """
    masks = coupled.masks(removed)
    clear: list[Setting] = []
    doubtful: list[Setting] = []
    of_config: list[Setting] = []
    sizes: dict[int, tuple[int, int] | None] = {}
    for path, axes in coupled.trace.frames.items():
        became: dict[int, set[int]] = {}
        for axis in axes:
            key = id(axis.same)
            if key not in sizes:
                sizes[key] = _became(axis, masks)
            found = sizes[key]
            if found is not None:
                became.setdefault(found[0], set()).add(found[1])
        changed = {old: new for old, new in became.items() if new != {old}}
        owner = module.get_submodule(path)
        for name, value in _numbers(vars(owner)) if changed else ():
            where = clear if _is_sure(value, changed) else doubtful
            where += [Setting(path, type(owner), name, new) for new in _new_values(value, changed)]
        held = getattr(getattr(owner, "config", None), "__dict__", {}) if changed else {}
        for name, value in _numbers(held):
            of_config += [
                Setting(path, type(owner), name, new, of_config=True)
                for new in _new_values(value, changed)
            ]
    return clear, doubtful, of_config


def _became(axis: Axis, masks: Mapping[Axis, np.ndarray]) -> tuple[int, int] | None:
    free = list(axis.free())
    if all(each.pinned == "it is an axis of the module's input" for each in free):
        return None
    if not any(each in masks for each in free):
        return axis.size, axis.size
    return axis.size, int(axis.kept(masks).sum())


def _numbers(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in attributes.items():
        if type(value) is int or (
            type(value) in (tuple, list, torch.Size)
            and value
            and all(type(v) is int for v in value)
        ):
            yield name, value


def _new_values(value: Any, changed: Mapping[int, set[int]]) -> list[Any]:
    if isinstance(value, tuple | list):
        if not any(v in changed for v in value):
            return []
        return [type(value)(max(changed.get(v, {v}) - {v} or {v}) for v in value)]
    return sorted(changed.get(value, set()) - {value}, reverse=True)


def _is_sure(value: Any, changed: Mapping[int, set[int]]) -> bool:
    values = value if isinstance(value, tuple | list) else (value,)
    return all(len(changed.get(v, {v})) == 1 for v in values)


def _choices(
    settings: tuple[list[Setting], list[Setting], list[Setting]],
) -> Iterator[list[Setting]]:
    """Yield what to try: nothing, what is clear, everything, then by the name of the attribute."""
    clear, doubtful, of_config = settings
    yield []
    for more in ([], doubtful, [*doubtful, *of_config], of_config):
        yield [*clear, *more]
    others = [*doubtful, *of_config]
    kinds = list(dict.fromkeys((s.kind, s.name, s.of_config, str(s.value)) for s in others))
    for count in range(1, len(kinds)):
        for some in itertools.combinations(kinds, count):
            yield clear + [s for s in others if (s.kind, s.name, s.of_config, str(s.value)) in some]


def apply(module: nn.Module, settings: Sequence[Setting]) -> None:
    """Give modules, and configurations of their own, the numbers of settings."""
    for each in settings:
        owner = module.get_submodule(each.module)
        if each.of_config:
            # One configuration serves all modules, of which only some become smaller.
            owner.config = copy.copy(owner.config)
            setattr(owner.config, each.name, each.value)
        else:
            setattr(owner, each.name, each.value)


class _Tried:
    """Settings that last as long as the context."""

    def __init__(self, module: nn.Module, settings: Sequence[Setting]) -> None:
        self._module, self._settings = module, settings
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        for each in self._settings:
            owner: Any = self._module.get_submodule(each.module)
            name = "config" if each.of_config else each.name
            self._before.append((owner, name, getattr(owner, name)))
        apply(self._module, self._settings)

    def __exit__(self, *_: object) -> None:
        for owner, name, value in reversed(self._before):
            setattr(owner, name, value)


def fit(module: nn.Module) -> None:
    """Have torch's layers say the sizes of their weights, whichever two of them were equal."""
    for each in module.modules():
        if isinstance(each, nn.Linear):
            each.out_features, each.in_features = each.weight.shape
        elif isinstance(each, nn.Embedding):
            each.num_embeddings, each.embedding_dim = each.weight.shape
        elif isinstance(each, nn.modules.batchnorm._BatchNorm) and each.weight is not None:
            each.num_features = len(each.weight)
        elif isinstance(each, nn.GroupNorm) and each.weight is not None:
            each.num_channels = len(each.weight)
        elif isinstance(each, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            each.out_channels = each.weight.shape[0]
            each.in_channels = each.weight.shape[1] * each.groups
        elif isinstance(each, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            each.in_channels = each.weight.shape[0]
            each.out_channels = each.weight.shape[1] * each.groups


def _difference(module: nn.Module, run: Run, expected: Sequence[torch.Tensor]) -> str:
    """Return how a module's outputs differ from what they should be; nothing where they do not."""
    try:
        found = tensors_of(run(module))
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        return f"it fails ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    if [t.shape for t in found] != [t.shape for t in expected]:
        return "its outputs have other shapes"
    for a, b in zip(found, expected, strict=True):
        if not b.is_floating_point():
            continue
        # Sums of other lengths are rounded otherwise, in every layer.
        allowed = 64 * torch.finfo(b.dtype).eps * max(1.0, float(b.abs().max()) if b.numel() else 0)
        off = float((a.float() - b.float()).abs().max()) if b.numel() else 0.0
        if not off <= allowed:
            return f"its outputs are off by {off:g}"
    return ""
