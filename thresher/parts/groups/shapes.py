"""What views, cuts and concatenations do to axes."""

from __future__ import annotations

__all__ = ["SHAPES"]

from collections.abc import Callable, Sequence

from .axes import Axis, concatenated, merged
from .trace import Call, Value


def _view(call: Call) -> Value:
    x = call.given("self")
    return _reshaped(call, x, list(call.result.shape))


def _reshaped(call: Call, x: Value, sizes: Sequence[int]) -> Value:
    if 0 in sizes:
        raise NotImplementedError
    sources = [(a, z) for a, z in zip(x.axes, x.zeros, strict=True) if a.size != 1]
    axes: list[Axis] = []
    zeros: list[bool] = []
    at = 0
    while at < len(sizes):
        if sizes[at] == 1:
            axes.append(Axis(1))
            zeros.append(False)
            at += 1
            continue
        taken, wanted = [sources.pop(0)], [sizes[at]]
        at += 1
        have, want = taken[0][0].size, wanted[0]
        while have != want:
            if have < want:
                taken.append(sources.pop(0))
                have *= taken[-1][0].size
            else:
                wanted.append(sizes[at])
                want *= sizes[at]
                at += 1
        zero = all(each for _, each in taken)
        rest = merged([axis for axis, _ in taken])
        for size in wanted[:-1]:
            first, rest = call.split(rest, size)
            axes.append(first)
            zeros.append(zero)
        axes.append(rest)
        zeros.append(zero)
    return Value(tuple(axes), tuple(zeros))


def _permuted(call: Call, order: Sequence[int]) -> Value:
    x = call.given("self")
    return Value(tuple(x.axes[i] for i in order), tuple(x.zeros[i] for i in order))


def _permute(call: Call) -> Value:
    rank = call["self"].dim()
    return _permuted(call, [d % rank for d in call["dims"]])


def _transpose(call: Call) -> Value:
    rank = call["self"].dim()
    order = list(range(rank))
    a, b = call.arguments.get("dim0", 0), call.arguments.get("dim1", 1)
    if rank > 1:
        order[a % rank], order[b % rank] = b % rank, a % rank
    return _permuted(call, order)


def _unsqueeze(call: Call) -> Value:
    x = call.given("self")
    at = call["dim"] % (len(x.axes) + 1)
    return Value((*x.axes[:at], Axis(1), *x.axes[at:]), (*x.zeros[:at], False, *x.zeros[at:]))


def _squeeze(call: Call) -> Value:
    x = call.given("self")
    rank = len(x.axes)
    dims = call.arguments.get("dim")
    chosen = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {d % rank for d in chosen if x.axes[d % rank].size == 1}
    rest = [i for i in range(rank) if i not in gone]
    return Value(tuple(x.axes[i] for i in rest), tuple(x.zeros[i] for i in rest))


def _expand(call: Call) -> Value:
    x = call.given("self")
    shape = call.result.shape
    new = len(shape) - len(x.axes)
    axes = [call.fixed(size) for size in shape[:new]]
    for axis, size in zip(x.axes, shape[new:], strict=True):
        axes.append(axis if axis.size == size else call.fixed(size))
    return Value(tuple(axes), (*(False for _ in range(new)), *x.zeros))


def _repeat(call: Call) -> Value:
    x = call.given("self")
    new = len(call["repeats"]) - len(x.axes)
    axes = [call.fixed(times) for times in call["repeats"][:new]]
    for axis, times in zip(x.axes, call["repeats"][new:], strict=True):
        axes.append(axis if times == 1 else merged([call.fixed(times), axis]))
    return Value(tuple(axes), (*(False for _ in range(new)), *x.zeros))


def _select(call: Call) -> Value:
    x = call.given("self")
    dim = call["dim"] % len(x.axes)
    x.axes[dim].pin(f"{call.reason} takes one index of it")
    rest = [i for i in range(len(x.axes)) if i != dim]
    return Value(tuple(x.axes[i] for i in rest), tuple(x.zeros[i] for i in rest))


def _unbind(call: Call) -> list[Value]:
    return [_select(call)] * len(call.result)


def _slice(call: Call) -> Value:
    x = call.given("self")
    dim = call["dim"] % len(x.axes)
    axis, size = x.axes[dim], x.axes[dim].size
    start, stop, _ = slice(call["start"], call["end"]).indices(size)
    step = call["step"]
    if step == 1:
        part = axis if (start, stop) == (0, size) else call.cut(axis, start, max(start, stop))
    elif size % step == 0 and start < step and stop == size:
        part, inner = call.split(axis, size // step)
        inner.pin(f"{call.reason} takes one index of it")
    else:
        raise NotImplementedError
    return Value((*x.axes[:dim], part, *x.axes[dim + 1 :]), x.zeros)


def _split(call: Call) -> list[Value]:
    x = call.given("self")
    dim = call["dim"] % len(x.axes)
    found, at = [], 0
    for piece in call.result:
        size = piece.shape[dim]
        part = call.cut(x.axes[dim], at, at + size)
        found.append(Value((*x.axes[:dim], part, *x.axes[dim + 1 :]), x.zeros))
        at += size
    return found


def _cat(call: Call) -> Value:
    tensors = call["tensors"]
    values = [call.trace.value(t) for t in tensors if t.shape != (0,)]
    dim = (call["dim"] or 0) % len(values[0].axes)
    return _joined(call, values, dim, concatenated([v.axes[dim] for v in values]))


def _stack(call: Call) -> Value:
    values = [call.trace.value(t) for t in call["tensors"]]
    dim = (call["dim"] or 0) % (len(values[0].axes) + 1)
    values = [
        Value((*v.axes[:dim], Axis(1), *v.axes[dim:]), (*v.zeros[:dim], False, *v.zeros[dim:]))
        for v in values
    ]
    return _joined(call, values, dim, call.fixed(len(values)))


def _joined(call: Call, values: Sequence[Value], dim: int, axis: Axis) -> Value:
    first = values[0]
    for value in values[1:]:
        for i, (a, b) in enumerate(zip(first.axes, value.axes, strict=True)):
            if i != dim:
                call.unify(a, b)
    axes = (*first.axes[:dim], axis, *first.axes[dim + 1 :])
    zeros = tuple(all(v.zeros[i] for v in values) for i in range(len(axes)))
    return Value(axes, zeros)


def _pad(call: Call) -> Value:
    x = call.given("self")
    pads = call.arguments.get("pad") or call["padding"]
    axes, zeros = list(x.axes), list(x.zeros)
    for pair in range(len(pads) // 2):
        i = len(axes) - 1 - pair
        if pads[2 * pair] or pads[2 * pair + 1]:
            axes[i].pin(f"{call.reason} widens it")
            axes[i] = call.fixed(call.result.shape[i])
    if call.arguments.get("value"):
        zeros = [False] * len(zeros)
    return Value(tuple(axes), tuple(zeros))


def _turned(call: Call) -> Value:
    """Pin the axes along which a roll or a flip moves indices."""
    x = call.given("self")
    dims = call["dims"] or range(len(x.axes))
    for d in dims:
        x.axes[d % len(x.axes)].pin(f"{call.reason} changes the places of its indices")
    return x


SHAPES: dict[str, Callable[[Call], Value | Sequence[Value]]] = {
    **dict.fromkeys(["view", "_unsafe_view", "_reshape_alias", "reshape"], _view),
    **dict.fromkeys(["t", "transpose"], _transpose),
    "permute": _permute,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    "repeat": _repeat,
    "select": _select,
    "unbind": _unbind,
    "slice": _slice,
    **dict.fromkeys(["split", "split_with_sizes"], _split),
    "cat": _cat,
    "stack": _stack,
    **dict.fromkeys(["constant_pad_nd", "reflection_pad1d", "reflection_pad2d"], _pad),
    **dict.fromkeys(["roll", "flip"], _turned),
}
