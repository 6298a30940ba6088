"""What torch's operators do to axes, operator by operator.

A rule takes a :class:`~thresher.parts.groups.trace.Call` and returns the values of its results.
Where there is none, what meets the operator is pinned.
"""

from __future__ import annotations

__all__ = ["rule_of"]

from collections.abc import Callable, Sequence

import numpy as np
import torch

from .axes import Axis, merged
from .shapes import SHAPES
from .trace import Call, Value

Rule = Callable[[Call], Value | Sequence[Value]]


def rule_of(call: Call) -> Rule | None:
    """Return the rule of a call's operator."""
    name = call.name.removesuffix("_") if not call.name.startswith("_") else call.name
    found = _RULES.get(call.name) or _RULES.get(name) or SHAPES.get(name)
    if found is not None:
        return found
    if torch.Tag.pointwise in call.function.tags:
        return _pointwise
    if torch.Tag.reduction in call.function.tags:
        return _reduced
    if "pool" in name or name.startswith("upsample"):
        return _over_positions
    if name.startswith("_scaled_dot_product"):
        return _attention
    return None


# -- values, one by one -----------------------------------------------------------------------


def _pointwise(call: Call) -> Value:
    shape = call.result.shape
    values = {
        name: call.trace.value(each)
        for name, each in call.arguments.items()
        if isinstance(each, torch.Tensor)
    }
    axes, zeros = [], []
    for back in range(len(shape), 0, -1):
        met = {n: (v, len(v.axes) - back) for n, v in values.items() if len(v.axes) >= back}
        size = shape[len(shape) - back]
        there = [v.axes[i] for v, i in met.values() if v.axes[i].size == size]
        for axis in there[1:]:
            call.unify(there[0], axis)
        axis = there[0] if there else call.fixed(size)
        axes.append(axis)
        zero = {n for n, (v, i) in met.items() if v.axes[i].size == size and v.zeros[i]}
        zeros.append(axis.is_pinned or _is_zero(call, zero))
    return Value(tuple(axes), tuple(zeros))


def _is_zero(call: Call, zero: set[str]) -> bool:
    """Return whether an operator gives zero where some of its arguments are zero.

    It is asked: with zeros for these, and with numbers for the others.
    """
    for truth in (True, False):
        arguments = []
        for argument in call.function._schema.arguments:
            given = call.arguments[argument.name]
            if isinstance(given, torch.Tensor):
                plain = given.dtype.is_floating_point or given.dtype.is_complex
                other = 0.7 if plain else truth
                filled = 0 if argument.name in zero else other
                given = torch.full((1,), filled, dtype=given.dtype)
            arguments.append((argument, given))
        try:
            with torch.utils._python_dispatch._disable_current_modes():
                result = call.function(
                    *(g for a, g in arguments if not a.kwarg_only),
                    **{a.name: g for a, g in arguments if a.kwarg_only},
                )
        except (RuntimeError, TypeError, ValueError):
            return False
        if bool(result.ne(0).any()):
            return False
    return True


def _copied(call: Call) -> Value:
    into, other = call.given("self"), call.given("src")
    zeros = [False] * len(into.axes)
    for back in range(1, len(other.axes) + 1):
        if other.axes[-back].size == into.axes[-back].size:
            call.unify(into.axes[-back], other.axes[-back])
            zeros[-back] = other.zeros[-back]
    return Value(into.axes, tuple(zeros))


def _filled_alike(call: Call) -> Value:
    like = call.given("self")
    zero = "zeros" in call.name or "empty" in call.name
    zero = zero or call.arguments.get("fill_value", call.arguments.get("value")) == 0
    return Value(like.axes, (zero,) * len(like.axes))


def _same(call: Call) -> list[Value]:
    value = call.given("self", "input")
    count = len(call.result) if isinstance(call.result, tuple | list) else 1
    return [value] * count


# -- products ---------------------------------------------------------------------------------


def _matmul(call: Call) -> Value:
    a, b = call.given("self"), call.given("mat2", "vec", "tensor")
    return _product(call, a, b)


def _product(call: Call, a: Value, b: Value) -> Value:
    call.contract(a, -1, b, -2 if len(b.axes) > 1 else -1)
    axes, zeros = list(a.axes[:-1]), list(a.zeros[:-1])
    for i in range(len(b.axes) - 2):
        call.unify(axes[i], b.axes[i])
        zeros[i] = zeros[i] or b.zeros[i]
    if len(b.axes) > 1:
        axes.append(b.axes[-1])
        zeros.append(b.zeros[-1])
    return Value(tuple(axes), tuple(zeros))


def _added_matmul(call: Call) -> Value:
    a, b = call.given("mat1", "batch1", "mat"), call.given("mat2", "batch2", "vec")
    bias = call.given("self")
    return _with_bias(call, _product(call, a, b), bias)


def _with_bias(call: Call, value: Value, bias: Value | None) -> Value:
    if bias is None:
        return value
    zeros = [False] * len(value.axes)
    for back in range(1, len(bias.axes) + 1):
        if bias.axes[-back].size == value.axes[-back].size:
            call.unify(value.axes[-back], bias.axes[-back])
            zeros[-back] = value.zeros[-back] and bias.zeros[-back]
    return Value(value.axes, tuple(zeros))


def _linear(call: Call) -> Value:
    x, weight = call.given("input"), call.given("weight")
    call.contract(x, -1, weight, 1)
    axes, zeros = (*x.axes[:-1], weight.axes[0]), (*x.zeros[:-1], weight.zeros[0])
    return _with_bias(call, Value(axes, zeros), call.value("bias"))


def _convolution(call: Call) -> Value:
    x, weight, bias = call.given("input"), call.given("weight"), call.value("bias")
    groups, inputs = call["groups"], 0 if call["transposed"] else 1
    if groups == 1:
        call.contract(x, 1, weight, inputs)
        outputs = weight.axes[1 - inputs]
    else:
        outputs = _grouped(call, x, weight, groups)
    zero = weight.zeros[1 - inputs]
    if bias is not None:
        call.unify(bias.axes[0], outputs)
        zero = zero and bias.zeros[0]
    axes = [x.axes[0], outputs, *(call.fixed(size) for size in call.result.shape[2:])]
    for axis in weight.axes[2:]:
        axis.pin("it is a position in a kernel")
    zeros = [x.zeros[0] and bias is None, zero, *(False for _ in axes[2:])]
    return Value(tuple(axes), tuple(zeros))


def _grouped(call: Call, x: Value, weight: Value, groups: int) -> Axis:
    """Relate the channels of a convolution with groups; return those that it gives."""
    stack, inner = call.split(x.axes[1], groups)
    call.trace.meet(stack)
    if call["transposed"]:
        call.unify(x.axes[1], weight.axes[0])
        outputs = merged([stack, weight.axes[1]])
    else:
        call.unify(inner, weight.axes[1])
        theirs, _ = call.split(weight.axes[0], groups)
        call.unify(stack, theirs)
        outputs = weight.axes[0]
    inner.consume()
    if not (x.zeros[1] or weight.zeros[1]):
        inner.pin(f"{call.reason} sums over it, and what was removed is not zero there")
    call.trace.columns.add(id(weight.axes[0 if call["transposed"] else 1]))
    return outputs


def _experts_matmul(call: Call) -> Value:
    """Rows sorted by expert, each times its expert's matrix."""
    x, weight = call.given("self"), call.given("mat2")
    if len(x.axes) != 2 or len(weight.axes) != 3:
        raise NotImplementedError
    call.contract(x, 1, weight, 1)
    weight.axes[0].pin("it is chosen by value")
    value = Value((x.axes[0], weight.axes[2]), (False, weight.zeros[2]))
    return _with_bias(call, value, call.value("bias"))


def _attention(call: Call) -> list[Value]:
    query, key, value = call.given("query"), call.given("key"), call.given("value")
    if len(query.axes) != 4:
        raise NotImplementedError
    call.unify(query.axes[0], key.axes[0])
    call.unify(query.axes[0], value.axes[0])
    call.unify(key.axes[1], value.axes[1])
    heads, shared = query.axes[1], key.axes[1]
    if heads.size != shared.size:
        heads = call.split(heads, shared.size)[0]
    call.unify(heads, shared)
    for axis in (query.axes[3], key.axes[3], value.axes[3]):
        axis.pin("it is the width of an attention head")
    for axis in (key.axes[2], value.axes[2]):
        axis.pin(f"{call.reason} sums over it")
    _bias_of_attention(call, query, key)
    axes = (query.axes[0], query.axes[1], query.axes[2], value.axes[3])
    first = Value(axes, (value.zeros[0], value.zeros[1], False, True))
    rest = [t for t in call.result[1:] if isinstance(t, torch.Tensor)]
    return [first, *(_fixed_like(call, tensor) for tensor in rest)]


def _bias_of_attention(call: Call, query: Value, key: Value) -> None:
    bias = call.value("attn_mask") or call.value("attn_bias")
    if bias is None:
        return
    scores = (*query.axes[:3], key.axes[2])
    for back in range(1, len(bias.axes) + 1):
        if bias.axes[-back].size == scores[-back].size:
            call.unify(bias.axes[-back], scores[-back])


def _fixed_like(call: Call, tensor: torch.Tensor) -> Value:
    return Value(tuple(call.fixed(size) for size in tensor.shape), (True,) * tensor.dim())


# -- sums and normalisations ------------------------------------------------------------------


def _dims(call: Call, rank: int) -> set[int]:
    given = call.arguments.get("dim")
    if given is None or given == []:
        return set(range(rank))
    return {d % rank for d in ([given] if isinstance(given, int) else given)} if rank else set()


def _reduced(call: Call) -> list[Value]:
    x = call.given("self")
    dims = _dims(call, len(x.axes))
    for i in dims:
        if call.name == "sum" and x.zeros[i]:
            x.axes[i].consume()
        else:
            x.axes[i].pin(f"{call.reason} is taken over it")
    keep = bool(call.arguments.get("keepdim"))
    axes = [
        Axis(1) if i in dims else axis for i, axis in enumerate(x.axes) if keep or i not in dims
    ]
    zero = call.name in ("sum", "mean", "amax", "amin")
    zeros = [zero and x.zeros[i] for i in range(len(x.axes)) if keep or i not in dims]
    count = len(call.result) if isinstance(call.result, tuple | list) else 1
    return [Value(tuple(axes), tuple(zeros))] * count


def _along(call: Call) -> list[Value]:
    """Operators that mix along one axis, whose size they keep or set."""
    x = call.given("self")
    results = call.result if isinstance(call.result, tuple | list) else [call.result]
    dim = call.arguments.get("dim")
    dim = (-1 if dim is None else dim) % len(x.axes)
    x.axes[dim].pin(f"{call.reason} is taken over it")
    axes = [call.fixed(results[0].shape[i]) if i == dim else a for i, a in enumerate(x.axes)]
    return [Value(tuple(axes), (False,) * len(axes))] * len(results)


def _batch_norm(call: Call) -> list[Value]:
    x = call.given("input")
    if call.arguments.get("training"):
        raise NotImplementedError
    stored = [call.value(n) for n in ("weight", "bias", "running_mean", "running_var")]
    for value in stored:
        if value is not None:
            call.unify(value.axes[0], x.axes[1])
    weight, bias = stored[:2]
    zero = bias is None or bias.zeros[0]
    zero = zero and (x.zeros[1] or (weight is not None and weight.zeros[0]))
    zeros = [i == 1 and zero for i in range(len(x.axes))]
    return [Value(x.axes, tuple(zeros)), *_others(call)]


def _layer_norm(call: Call) -> list[Value]:
    x, weight, bias = call.given("input"), call.value("weight"), call.value("bias")
    count = len(call["normalized_shape"])
    for axis in x.axes[-count:]:
        axis.pin(f"{call.reason} normalises over it")
    for value in (weight, bias):
        if value is not None:
            for a, b in zip(value.axes, x.axes[-count:], strict=True):
                call.unify(a, b)
    zeros = tuple(bias is None and zero for zero in x.zeros)
    return [Value(x.axes, zeros), *_others(call)]


def _group_norm(call: Call) -> list[Value]:
    x, weight, bias = call.given("input"), call.given("weight"), call.value("bias")
    groups, inner = call.split(x.axes[1], call["group"])
    call.trace.meet(groups)
    inner.pin(f"{call.reason} normalises over it")
    for value in (weight, bias):
        if value is not None:
            call.unify(value.axes[0], x.axes[1])
    zero = bias is None or bias.zeros[0]
    return [Value(x.axes, tuple(i == 1 and zero for i in range(len(x.axes)))), *_others(call)]


def _others(call: Call) -> list[Value]:
    return [_fixed_like(call, t) for t in call.result[1:] if isinstance(t, torch.Tensor)]


def _over_positions(call: Call) -> list[Value]:
    """Pooling and resizing: batch and channels stay, positions are new."""
    x = call.given("self", "input")
    results = call.result if isinstance(call.result, tuple | list) else [call.result]
    # Without a batch the channels come first.
    count = 2 if "1d" not in call.name or len(x.axes) > 2 else 1
    first = x.axes[:count]
    axes = [(*first, *(call.fixed(s) for s in t.shape[len(first) :])) for t in results]
    zeros = (*x.zeros[: len(first)], *(False for _ in x.axes[len(first) :]))
    return [Value(a, zeros) for a in axes]


# -- looking up -------------------------------------------------------------------------------


def _embedding(call: Call) -> Value:
    weight, at = call.given("weight"), call.given("indices")
    weight.axes[0].pin("it is looked up by the input")
    return Value((*at.axes, weight.axes[1]), (*(False for _ in at.axes), weight.zeros[1]))


def _index(call: Call) -> Value:
    x = call.given("self")
    return _indexed(call, x, call["indices"])


def _indexed(call: Call, x: Value, indices: Sequence[torch.Tensor | None]) -> Value:
    indices = [*indices, *[None] * (len(x.axes) - len(indices))]
    if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
        raise NotImplementedError
    at = [i for i, index in enumerate(indices) if index is not None]
    for i in at:
        x.axes[i].pin("it is looked up by value")
    shape = np.broadcast_shapes(*(tuple(i.shape) for i in indices if i is not None))
    looked = [call.fixed(size) for size in shape]
    start = at[0] if at == list(range(at[0], at[-1] + 1)) else 0
    rest = [i for i in range(len(x.axes)) if i not in at]
    axes, zeros = [x.axes[i] for i in rest], [x.zeros[i] for i in rest]
    axes[start:start], zeros[start:start] = looked, [False] * len(looked)
    return Value(tuple(axes), tuple(zeros))


def _index_put(call: Call) -> Value:
    x, values = call.given("self"), call.given("values")
    return _written(call, x, _indexed(call, x, call["indices"]), values)


def _written(call: Call, x: Value, into: Value, values: Value) -> Value:
    """Return a value after others were written into a part of it."""
    zero: dict[int, bool] = {}
    for back in range(1, len(values.axes) + 1):
        if values.axes[-back].size == into.axes[-back].size:
            call.unify(values.axes[-back], into.axes[-back])
            zero[id(into.axes[-back])] = values.zeros[-back]
    zeros = [z and zero.get(id(a), False) for a, z in zip(x.axes, x.zeros, strict=True)]
    return Value(x.axes, tuple(zeros))


def _index_add(call: Call) -> Value:
    x, source = call.given("self"), call.given("source")
    dim = call["dim"] % len(x.axes)
    zeros = []
    for i, (a, b) in enumerate(zip(x.axes, source.axes, strict=True)):
        if i == dim:
            a.pin("it is looked up by value")
            b.pin("it is looked up by value")
        else:
            call.unify(a, b)
        zeros.append(i != dim and x.zeros[i] and source.zeros[i])
    return Value(x.axes, tuple(zeros))


def _index_select(call: Call) -> Value:
    x = call.given("self")
    dim = call["dim"] % len(x.axes)
    x.axes[dim].pin("it is looked up by value")
    axes = [call.fixed(call.result.shape[i]) if i == dim else a for i, a in enumerate(x.axes)]
    return Value(tuple(axes), x.zeros)


_RULES: dict[str, Rule] = {
    "copy": _copied,
    # Not tagged as what they are.
    **dict.fromkeys(["_prelu_kernel", "hardswish"], _pointwise),
    **dict.fromkeys(
        ["zeros_like", "ones_like", "empty_like", "full_like", "zero", "fill", "rand_like"],
        _filled_alike,
    ),
    **dict.fromkeys(["_to_copy", "detach", "alias", "lift_fresh", "native_dropout"], _same),
    **dict.fromkeys(["mm", "bmm", "mv", "dot"], _matmul),
    **dict.fromkeys(["addmm", "baddbmm", "addmv"], _added_matmul),
    "linear": _linear,
    "_grouped_mm": _experts_matmul,
    "convolution": _convolution,
    **dict.fromkeys(
        ["native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"],
        _batch_norm,
    ),
    "native_layer_norm": _layer_norm,
    "_fused_rms_norm": _layer_norm,
    "native_group_norm": _group_norm,
    **dict.fromkeys(
        ["_softmax", "_safe_softmax", "_log_softmax", "cumsum", "topk", "sort"], _along
    ),
    "embedding": _embedding,
    "index": _index,
    "index_put": _index_put,
    "index_add": _index_add,
    "index_select": _index_select,
}
