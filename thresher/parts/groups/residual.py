"""The residual stream: the axis that every block of a transformer reads and adds to."""

from __future__ import annotations

__all__ = ["Residual", "Slice", "find_residual", "fold_norms", "project", "sliced"]

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...core.errors import LayerError
from .axes import Axis
from .find import Coupled

Run = Callable[[nn.Module], Any]
#: What a norm is tried on.
_ROWS = 8


@dataclass(frozen=True)
class Slice:
    """An axis of a parameter or buffer that is the residual stream's.

    Parameters
    ----------
    parameter : str
        Path in the module.
    axis : int
    """

    parameter: str
    axis: int

    @property
    def owner(self) -> str:
        """Path of the module that holds it."""
        return self.parameter.rpartition(".")[0]


@dataclass(frozen=True)
class Residual:
    """What reads a residual stream, what adds to it, and the norms in between.

    Parameters
    ----------
    width : int
        Numbers of a token.
    readers, writers : tuple of Slice
        What sums over the stream, and what gives it.
    norms : tuple of Slice
        Scales of norms.
    before : mapping of str to str
        By parameter of a reader, the scale of the norm that it reads the stream through.
    names : mapping of str to list of str
        All names of each parameter.
    """

    width: int
    readers: tuple[Slice, ...]
    writers: tuple[Slice, ...]
    norms: tuple[Slice, ...]
    before: Mapping[str, str]
    names: Mapping[str, list[str]]


def find_residual(module: nn.Module, coupled: Coupled, run: Run) -> Residual:
    """Find the residual stream of a transformer.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, no parameter of which both reads the stream and adds to it.
    coupled : Coupled
        Its groups, see :func:`~thresher.parts.groups.find.find_groups`.
    run : callable
        Calls a module on an example, without gradients.

    Raises
    ------
    LayerError
        If there is none, or a part of it is used in a way that is not understood.
    """
    stream = _widest(coupled)
    readers, writers, norms = [], [], []
    for parameter, axes in coupled.trace.axes.items():
        for index, axis in enumerate(axes):
            if stream not in axis.free():
                continue
            if axis.same is not stream:
                raise LayerError(
                    f"the residual stream of {type(module).__name__} is but a part of an axis of "
                    f"{parameter!r}, and cannot be turned"
                )
            found = Slice(parameter, index)
            if id(axis) in coupled.trace.columns:
                readers.append(found)
            elif _is_norm(module, found):
                norms.append(found)
            else:
                writers.append(found)
    before = _norms_before(module, readers, norms, run)
    names = coupled.trace.names
    return Residual(stream.size, tuple(readers), tuple(writers), tuple(norms), before, names)


def _widest(coupled: Coupled) -> Axis:
    """Return the axis that most matrices have in common."""
    counts = Counter(
        axis.same
        for axes in coupled.trace.axes.values()
        if len(axes) > 1
        for axis in axes
        if axis.size > 1 and list(axis.free()) == [axis.same]
    )
    found = counts.most_common(1)
    if not found or found[0][1] < 3:
        raise LayerError("no residual stream is found; use a method that removes units")
    return found[0][0]


def _is_norm(module: nn.Module, found: Slice) -> bool:
    own = module.get_submodule(found.owner).parameters(recurse=False)
    return all(parameter.dim() == 1 for parameter in own)


def _norms_before(
    module: nn.Module, readers: list[Slice], norms: list[Slice], run: Run
) -> dict[str, str]:
    """Return the norm that was called last before each reader's module."""
    scales = {norm.owner: norm.parameter for norm in norms}
    last: list[str | None] = [None]
    found: dict[str, str | None] = {}

    def called(path: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            if path in scales:
                last[0] = scales[path]
            else:
                found.setdefault(path, last[0])

        return note

    with ExitStack() as stack:
        for path in {*scales, *(reader.owner for reader in readers)}:
            hook = module.get_submodule(path).register_forward_pre_hook(called(path))
            stack.callback(hook.remove)
        run(module)
    for reader in readers:
        if reader.owner not in found:
            raise LayerError(
                f"{reader.parameter!r} reads the residual stream without its module being called, "
                "so that it is not known through which norm"
            )
    read = {reader.parameter: found[reader.owner] for reader in readers}
    return {parameter: norm for parameter, norm in read.items() if norm is not None}


@torch.no_grad()
def fold_norms(module: nn.Module, residual: Residual) -> None:
    """Move the scales of norms into what reads the stream through them, in place.

    Parameters
    ----------
    module : nn.Module
    residual : Residual
        Its stream.

    Raises
    ------
    LayerError
        If a norm is none that divides by the root of the mean square alone.
    """
    gains = {}
    for norm in residual.norms:
        gains[norm.parameter], neutral = _gain(module.get_submodule(norm.owner), norm)
        _get(module, norm.parameter).fill_(neutral)
    for reader in residual.readers:
        name = residual.before.get(reader.parameter)
        if name is not None:
            weight = _get(module, reader.parameter)
            shape = [1] * weight.dim()
            shape[reader.axis] = -1
            weight.copy_((weight.double() * gains[name].view(shape)).to(weight.dtype))


def _gain(norm: nn.Module, scale: Slice) -> tuple[torch.Tensor, float]:
    """Return by what a norm multiplies, and the number in its scale that stands for one."""
    own = dict(norm.named_parameters(recurse=False))
    if len(own) == 1:
        (weight,) = (parameter.detach().float() for parameter in own.values())
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(_ROWS, len(weight), generator=generator).to(weight.device)
        given = _given(copy.deepcopy(norm).float(), x)
        plain = x / x.square().mean(-1, keepdim=True).sqrt()
        for gain, neutral in ((weight, 1.0), (1 + weight, 0.0)):
            wanted = gain * plain
            if given is not None and torch.allclose(given, wanted, rtol=1e-3, atol=1e-4):
                return gain.double(), neutral
    raise LayerError(
        f"{scale.owner!r} is a {type(norm).__name__}, and does not merely divide by the root of "
        "the mean square: the residual stream cannot be turned; use a method that removes units, "
        "such as 'structured'"
    )


def _given(norm: nn.Module, x: torch.Tensor) -> torch.Tensor | None:
    """Return what a module makes of rows; None where it takes none, and is no norm."""
    try:
        given = norm(x)
    except Exception:  # of modules of all kinds, each has errors of its own
        return None
    return given if isinstance(given, torch.Tensor) and given.shape == x.shape else None


@torch.no_grad()
def project(module: nn.Module, residual: Residual, basis: torch.Tensor) -> None:
    """Have a stream keep within the span of some directions, in place.

    Parameters
    ----------
    module : nn.Module
        With its norms folded.
    residual : Residual
    basis : Tensor of float64, shape (width, kept)
        Orthonormal columns.
    """
    onto = basis @ basis.T
    for writer in residual.writers:
        weight = _get(module, writer.parameter)
        weight.copy_(_turned(weight, writer.axis, onto))


@torch.no_grad()
def sliced(module: nn.Module, residual: Residual, basis: torch.Tensor) -> nn.Module:
    """Return a module whose stream is as wide as the number of some directions.

    It gives what :func:`project` has the module give, though its norms take the mean over fewer
    numbers: what is written is smaller by the root of the ratio, and what reads it larger, so that
    a norm's epsilon also stays what it was.

    Parameters
    ----------
    module, residual, basis
        See :func:`project`. The module may be on the device meta, with its basis.

    Returns
    -------
    nn.Module
        A copy, whose numbers that say sizes are still the module's.
    """
    parts = [(part.parameter, part.axis) for part in (*residual.readers, *residual.writers)]
    cut = {name for name, _ in parts} | {norm.parameter for norm in residual.norms}
    # What is cut below need not be in memory twice.
    small = copy.deepcopy(module, {id(t): t for t in (_get(module, name) for name in cut)})
    width, kept = basis.shape
    scale = math.sqrt(kept / width)
    made = {name: _get(module, name).detach() for name in cut}
    readers = {(reader.parameter, reader.axis) for reader in residual.readers}
    for name, axis in parts:
        factor = 1 / scale if (name, axis) in readers else scale
        made[name] = _turned(made[name], axis, basis * factor)
    for norm in residual.norms:
        made[norm.parameter] = made[norm.parameter][:kept].clone()
    for name, tensor in made.items():
        held = _get(module, name)
        new: Any = tensor
        if isinstance(held, nn.Parameter):
            new = nn.Parameter(tensor, requires_grad=held.requires_grad)
        for alias in residual.names[name]:
            owner, _, leaf = alias.rpartition(".")
            holder = small.get_submodule(owner)
            place = holder._parameters if leaf in holder._parameters else holder._buffers
            place[leaf] = new
    return small


def _turned(tensor: torch.Tensor, axis: int, basis: torch.Tensor) -> torch.Tensor:
    """Return a tensor with an axis multiplied by a matrix of shape (old, new)."""
    moved = tensor.detach().movedim(axis, -1).to(basis.dtype) @ basis
    return moved.movedim(-1, axis).to(tensor.dtype).contiguous()


def _get(module: nn.Module, name: str) -> torch.Tensor:
    owner, _, leaf = name.rpartition(".")
    found: torch.Tensor = getattr(module.get_submodule(owner), leaf)
    return found
