"""Walks: forward passes that halt before every unit, so that all samples go on in step.

A sample's forward pass is the model's own, from its input to its last unit. It runs in a
greenlet, which is left where the model calls a unit and entered again when the unit may run.
Whatever the model hands its units (masks, positions, an encoder's states, what an earlier unit
returned besides its hidden state) is then exactly what it hands them by itself.
"""

from __future__ import annotations

__all__ = [
    "EntangledError",
    "Halt",
    "Walk",
    "call_on_copy",
    "halting",
    "lending",
    "memories",
    "replica",
    "tensors",
]

import contextvars
import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import greenlet
import torch
from torch import nn

from ..core.errors import DataError
from ..parts.layers import Layer
from .calls import Forward, forward_within
from .passes import call
from .surroundings import Settings, Surroundings, entanglements
from .units import Unit


class EntangledError(DataError):
    """A pass stands where it cannot be left for another one."""


@dataclass
class Halt:
    """A call of a unit that a walk waits for.

    Parameters
    ----------
    unit : Unit
        What is called.
    args : tuple
        Positional arguments, as the model made them.
    keywords : dict
        Keyword arguments.
    lent : bool
        Whether other weights are in the place of the unit's own for this call, as
        ``torch.func.functional_call`` puts them.
    before : Layer, optional
        Of the unit, which runs already: the layer that is called in it.
    """

    unit: Unit
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    lent: bool = False
    before: Layer | None = None

    def copies(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments copied, so that a call cannot change them for the next one."""
        args, keywords = replica((self.args, self.keywords))
        return args, keywords


class Walk(greenlet.greenlet):  # type: ignore[misc]
    """One sample's forward pass.

    Parameters
    ----------
    forward : callable
        Runs the model on the sample; called without arguments.

    Attributes
    ----------
    halt : Halt or None
        Where it waits; None when it has not started or has ended.
    made : set of int or None
        Memory of what the last unit returned; None before the first one.
    """

    def __init__(self, forward: Callable[[], Any]) -> None:
        super().__init__(forward)
        self.halt: Halt | None = None
        self.made: set[int] | None = None
        self._inside: Surroundings | None = None
        # Otherwise a greenlet begins without the variables that its maker has set.
        self.gr_context = contextvars.copy_context()

    @property
    def settings(self) -> Settings | None:
        """What is set where it waits."""
        return None if self._inside is None else self._inside.settings

    def go_on(self) -> Any:
        """Run the unit that it waits for, and on to the next one; return what the model gave.

        Returns
        -------
        Any
            The model's output, once it has ended; None before that.

        Raises
        ------
        EntangledError
            If the next unit is called in a block that can only be left in its turn. The pass
            has then been stopped.
        """
        before = entanglements()
        reached = self._enter(self.switch)
        if not isinstance(reached, Halt):
            self.halt = None
            return reached
        self.halt = reached
        name = reached.unit.name
        if entanglements() != before:
            self.stop()
            raise EntangledError(
                f"{name!r} is called inside a mode or a transform of torch's functions, which "
                "would act on everything else while the pass waits"
            )
        if reached.lent:
            self.stop()
            raise EntangledError(
                f"{name!r} is called with other weights in the place of its own, which would be "
                "taken for them while the pass waits"
            )
        return None

    def is_at(self, unit: Unit) -> bool:
        """Return whether it waits for a unit, or inside it."""
        return self.halt is not None and self.halt.unit is unit

    def stands_before(self, layer: Layer | None) -> bool:
        """Return whether it is inside a unit, at a call of a layer of it."""
        return self.halt is not None and layer is not None and self.halt.before is layer

    def stop(self) -> None:
        """Leave the forward pass where it is."""
        if self and not self.dead:
            self._enter(self.throw)
        self.halt = None

    def _enter(self, enter: Callable[[], Any]) -> Any:
        """Go on in the surroundings that it was left in, and come back to those of here."""
        self.parent = greenlet.getcurrent()
        outside = Surroundings()
        try:
            if self._inside is not None:
                self._inside.put()
            return enter()
        finally:
            self._inside = None if self.dead else Surroundings()
            outside.put()


@contextmanager
def halting(
    units: Sequence[Unit],
    returned: Callable[[Unit, Any], None] = lambda unit, output: None,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[None]:
    """Have walks halt at `units` while the context lasts; other calls go through.

    Parameters
    ----------
    units : sequence of Unit
        Where to halt.
    returned : callable, optional
        ``returned(unit, output)`` is called with what a unit has computed, before its hooks.
    around : callable, optional
        Returns a context that a walk's unit computes in.
    """
    with ExitStack() as stack:
        for unit in units:
            wrap = functools.partial(_halting_forward, unit, returned, around)
            stack.enter_context(forward_within(unit.module, wrap))
        yield


def _halting_forward(
    unit: Unit,
    returned: Callable[[Unit, Any], None],
    around: Callable[[], AbstractContextManager[Any]],
    forward: Forward,
) -> Forward:
    lends = lending(unit)

    def halt(*args: Any, **keywords: Any) -> Any:
        walk = greenlet.getcurrent()
        if not isinstance(walk, Walk):
            return forward(*args, **keywords)
        walk.parent.switch(Halt(unit, args, keywords, lends()))
        with around():
            output = forward(*args, **keywords)
        walk.made = set(memories(output))
        returned(unit, output)
        return output

    return halt


def lending(unit: Unit) -> Callable[[], bool]:
    """Return a test of whether other weights are in the place of those that a unit has now."""
    # Weights that are loaded meanwhile take the place of some without data.
    own = [(part, k, p) for part, k, p in _weights(unit.module) if not p.is_meta]
    return lambda: any(part._parameters.get(key) is not weight for part, key, weight in own)


def _weights(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for part in module.modules():
        for key, weight in part._parameters.items():
            if weight is not None:
                yield part, key, weight


def memories(value: Any) -> Iterator[int]:
    """Yield the addresses of the memory that tensors in `value` read."""
    for tensor in tensors(value):
        yield tensor.untyped_storage().data_ptr()


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in an argument, or in containers of arguments."""
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided:
            yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from tensors(each)


def call_on_copy(model: nn.Module, sample: Any) -> Any:
    """Call a model on a copy of a sample, which it may change in place."""
    return call(model, replica(sample))


def replica(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Copy a call's arguments: tensors, containers and caches; modules stay themselves.

    Parameters
    ----------
    value : Any
        An argument, or a container of some.
    memo : dict, optional
        Copies by the identity of what was copied, so that what is shared stays shared.
    """
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, torch.Tensor):
        made: Any = value if isinstance(value, nn.Parameter) else value.detach().clone()
    elif isinstance(value, dict) and type(value) is dict:
        made = {key: replica(each, memo) for key, each in value.items()}
    elif type(value) in (list, tuple):
        made = type(value)(replica(each, memo) for each in value)
    elif value is None or isinstance(value, nn.Module | str | bytes | int | float | bool | type):
        made = value
    else:
        made = _deep_copy(value, memo)
    memo[id(value)] = made
    return made


def _deep_copy(value: Any, memo: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except (TypeError, RuntimeError, NotImplementedError):
        # What cannot be copied is handed over as it is; the proof at the start of a run shows
        # whether a unit leaves something in it.
        return value
