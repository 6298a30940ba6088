"""One pass of a module, watched product by product: which axes of its parameters go together.

What runs is followed as it runs, below autograd, so that it does not matter how a module is
written, only which of torch's operators it calls.
"""

from __future__ import annotations

__all__ = ["Call", "Trace", "Value", "tensors_of"]

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode

from .axes import Axis, NestingError

_TORCH = str(Path(torch.__file__).parent)
#: Operators whose whole numbers choose a way, as a router's do, and are no values to branch on.
_CHOOSING = ("topk", "argmax", "argmin", "argsort", "sort", "nonzero", "multinomial")


@dataclass(frozen=True)
class Value:
    """What is known of a tensor.

    Parameters
    ----------
    axes : tuple of Axis
    zeros : tuple of bool
        By axis, whether the tensor is zero where the axis has lost an index but is not cut yet.
    varies : bool, default False
        Whether it depends on the input.
    real : bool, default False
        Whether it depends on what was computed of the input in numbers that are no choice.
    """

    axes: tuple[Axis, ...]
    zeros: tuple[bool, ...]
    varies: bool = False
    real: bool = False


@dataclass
class Call:
    """A call of an operator, with its arguments by their names.

    Parameters
    ----------
    trace : Trace
    name : str
        Of the operator, such as ``"addmm"``.
    function : callable
        The operator.
    arguments : dict of str to Any
    """

    trace: Trace
    name: str
    function: Any
    arguments: dict[str, Any]
    result: Any = None
    reason: str = field(default="")

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def value(self, name: str) -> Value | None:
        """Return what is known of an argument; None where none was given."""
        tensor = self.arguments.get(name)
        return None if tensor is None else self.trace.value(tensor)

    def given(self, *names: str) -> Value:
        """Return what is known of the first of some arguments that there is."""
        for name in names:
            found = self.value(name)
            if found is not None:
                return found
        raise NotImplementedError

    def unify(self, one: Axis, other: Axis) -> None:
        """Have two axes lose the same indices; pin what is of another size."""
        if one.size == other.size:
            one.unify(other, f"its division does not nest with what {self.reason} meets it with")
        elif 1 not in (one.size, other.size):
            raise NotImplementedError

    def split(self, axis: Axis, outer: int) -> tuple[Axis, Axis]:
        """Return an axis as a product; pin it where it is divided in another way."""
        try:
            return axis.split(outer)
        except NestingError:
            axis.pin(f"{self.reason} divides it in a way that does not nest")
            return self.fixed(outer), self.fixed(axis.size // outer)

    def cut(self, axis: Axis, start: int, stop: int) -> Axis:
        """Return a range of an axis; pin it where it is divided in another way."""
        try:
            return axis.cut(start, stop)
        except NestingError:
            axis.pin(f"{self.reason} cuts it in a way that does not nest")
            return self.fixed(stop - start)

    def fixed(self, size: int, why: str = "") -> Axis:
        """Return a new axis that stays whole."""
        return Axis(size, why or f"{self.reason} makes it, of a fixed size")

    def contract(self, a: Value, i: int, b: Value, j: int) -> None:
        """Note that axis `i` of one value is summed over with axis `j` of another."""
        one, other = a.axes[i], b.axes[j]
        self.unify(one, other)
        if not (a.zeros[i] or b.zeros[j]):
            one.pin(f"{self.reason} sums over it, and what was removed is not zero there")
        one.consume()
        for value, axis in ((a, one), (b, other)):
            if not value.varies:
                self.trace.columns.add(id(axis))


class Trace:
    """The axes of a module's parameters and buffers, as one pass of it relates them.

    Parameters
    ----------
    module : nn.Module
    rule_of : callable
        Returns what gives the values of a call's results, None where nothing does; see
        :mod:`thresher.parts.groups.rules`.

    Attributes
    ----------
    axes : dict of str to tuple of Axis
        By the first name of every parameter and buffer.
    names : dict of str to list of str
        All names of each.
    frames : dict of str to list of Axis
        By module, axes of the tensors that its own forward met.
    reached : set of str
        What the pass read.
    columns : set of int
        Ids of axes of parameters that the pass multiplied and summed over.
    attending : set of str
        Modules whose own forward took a softmax, as attention does.
    """

    def __init__(self, module: nn.Module, rule_of: Callable[[Any], Any]) -> None:
        self.module = module
        self.axes: dict[str, tuple[Axis, ...]] = {}
        self.names: dict[str, list[str]] = {}
        self.frames: dict[str, list[Axis]] = {}
        self.reached: set[str] = set()
        self.columns: set[int] = set()
        self.attending: set[str] = set()
        self.branches: list[str] = []
        self._rule_of = rule_of
        self._known: dict[int, tuple[torch.Tensor, Value]] = {}
        self._first: dict[int, str] = {}
        self._paths = {id(each): name for name, each in module.named_modules()}
        self._stack: list[str] = [""]
        for name, tensor in stored(module):
            first = self._first.setdefault(id(tensor), name)
            self.names.setdefault(first, []).append(name)
            if first == name:
                axes = tuple(Axis(size) for size in tensor.shape)
                self.axes[name] = axes
                self._known[id(tensor)] = (tensor, Value(axes, (True,) * len(axes)))

    @property
    def place(self) -> str:
        """The module whose forward is running."""
        return self._stack[-1]

    def run(self, run: Callable[[], Any]) -> None:
        """Follow a pass.

        Parameters
        ----------
        run : callable
            Calls the module once, without gradients, and returns its output.
        """
        with self._watched(), _Mode(self):
            output = run()
        for tensor in tensors_of(output):
            for axis in self.value(tensor).axes:
                axis.pin("it is an axis of the module's output")
        self._known.clear()

    def value(self, tensor: torch.Tensor) -> Value:
        """Return what is known of a tensor; one that comes from elsewhere is fixed."""
        found = self._known.get(id(tensor))
        if found is None:
            axes = tuple(Axis(size, "it meets a constant of a fixed size") for size in tensor.shape)
            found = (tensor, Value(axes, (True,) * len(axes)))
            self._known[id(tensor)] = found
        return found[1]

    def watch(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operator and note what it does to axes."""
        name = function.overloadpacket.__name__
        given = tensors_of([args, kwargs])
        for tensor in given:
            if id(tensor) in self._first:
                self.reached.add(self._first[id(tensor)])
        if "softmax" in name or "scaled_dot_product" in name:
            self.attending.add(self.place)
        if name == "_local_scalar_dense" and self.value(given[0]).real:
            self.branches.append(_line())
        result = function(*args, **kwargs)
        call = Call(self, name, function, _bound(function, args, kwargs), result)
        call.reason = f"{name} in {self.place or type(self.module).__name__}"
        before = [self.value(t) for t in given]
        found = self._apply(call, before)
        varies = any(v.varies for v in before)
        chosen = name in _CHOOSING
        for tensor, value in zip(tensors_of(result), found, strict=True):
            real = any(v.real for v in before) or (varies and tensor.is_floating_point())
            real = real and not (chosen and not tensor.is_floating_point())
            self._note(tensor, Value(value.axes, value.zeros, varies, real))
        frame = self.frames.setdefault(self.place, [])
        for value in [*before, *found]:
            frame.extend(value.axes)
        return result

    def meet(self, axis: Axis) -> None:
        """Note that the running module meets an axis that no tensor has as such."""
        self.frames.setdefault(self.place, []).append(axis)

    def give(self, sample: Any) -> None:
        """Pin the axes of what the module is called with."""
        for tensor in tensors_of(sample):
            axes = tuple(Axis(size, "it is an axis of the module's input") for size in tensor.shape)
            real = tensor.is_floating_point()
            value = Value(axes, (True,) * len(axes), varies=True, real=real)
            self._known[id(tensor)] = (tensor, value)

    def _apply(self, call: Call, given: Sequence[Value]) -> list[Value]:
        rule = self._rule_of(call)
        made = tensors_of(call.result)
        if rule is not None:
            try:
                found = rule(call)
                found = [found] if isinstance(found, Value) else list(found)
                shapes = [tuple(axis.size for axis in value.axes) for value in found]
                if shapes == [tuple(tensor.shape) for tensor in made]:
                    return found
            except NotImplementedError:
                pass
        why = f"{call.reason} is not understood"
        for value in given:
            for axis in value.axes:
                axis.pin(why)
        return [
            Value(tuple(Axis(s, why) for s in tensor.shape), (True,) * tensor.dim())
            for tensor in made
        ]

    def _note(self, tensor: torch.Tensor, value: Value) -> None:
        before = self._known.get(id(tensor))
        if before is not None:
            # Written in place: what else sees the memory may be zero no longer.
            lost = any(a and not b for a, b in zip(before[1].zeros, value.zeros, strict=True))
            if lost and not tensor.is_meta:
                self._spoil(tensor)
        self._known[id(tensor)] = (tensor, value)

    def _spoil(self, written: torch.Tensor) -> None:
        place = written.untyped_storage().data_ptr()
        for key, (tensor, value) in list(self._known.items()):
            if tensor.layout == torch.strided and tensor.untyped_storage().data_ptr() == place:
                none = (False,) * len(value.zeros)
                self._known[key] = (tensor, Value(value.axes, none, value.varies, value.real))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        def enter(module: nn.Module, _: Any) -> None:
            self._stack.append(self._paths.get(id(module), self._stack[-1]))

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            self._stack.pop()

        with ExitStack() as stack:
            for handle in (
                hooks.register_module_forward_pre_hook(enter),
                hooks.register_module_forward_hook(leave, always_call=True),
            ):
                stack.callback(handle.remove)
            yield


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, trace: Trace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trace = trace

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._trace.watch(func, args, kwargs or {})


def stored(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return every parameter and buffer under each of its names."""
    found: list[tuple[str, torch.Tensor]] = []
    found += module.named_parameters(remove_duplicate=False)
    found += module.named_buffers(remove_duplicate=False)
    return found


def tensors_of(tree: Any) -> list[torch.Tensor]:
    """Return the tensors in lists, tuples and mappings, in order."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if hasattr(tree, "items") and callable(tree.items):
        tree = [each for _, each in tree.items()]
    if isinstance(tree, list | tuple):
        return [tensor for each in tree for tensor in tensors_of(each)]
    return []


def _bound(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for index, argument in enumerate(function._schema.arguments):
        if index < len(args):
            found[argument.name] = args[index]
        else:
            default = argument.default_value if argument.has_default_value() else None
            found[argument.name] = kwargs.get(argument.name, default)
    return found


def _line() -> str:
    """Return the place in the model's own code that is running."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_TORCH) and file != __file__:
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
