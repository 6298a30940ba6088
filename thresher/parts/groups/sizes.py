"""Sizes that a configuration of transformers cannot say, in it under a key of their own.

A model whose blocks have widths of their own is built as the dense one, and then cut to the shapes
of its stored tensors; what numbers of its modules say sizes is in the configuration.
"""

from __future__ import annotations

__all__ = ["SIZES_KEY", "as_data", "cut", "from_data", "note_sizes", "place", "sizes_of"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...core.errors import CheckpointError
from .shrink import Setting, apply, fit

#: What a configuration has the settings under.
SIZES_KEY = "thresher_sizes"


def as_data(settings: Iterable[Setting]) -> list[dict[str, Any]]:
    """Return settings as JSON has them."""
    return [
        {"module": s.module, "name": s.name, "value": s.value, "of_config": s.of_config}
        for s in settings
    ]


def note_sizes(config: Any, settings: Sequence[Setting]) -> None:
    """Have a configuration say that its model has sizes of its own, after those that it says.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Of a model that became smaller.
    settings : sequence of Setting
        What numbers of its modules became.
    """
    earlier = sizes_of(config) or []
    known = {(s.module, s.name, s.of_config): s for s in [*earlier, *settings]}
    setattr(config, SIZES_KEY, as_data(known.values()))


def sizes_of(config: Any) -> list[Setting] | None:
    """Return the settings that a configuration says; None where the model has no sizes of its own.

    Raises
    ------
    CheckpointError
        If they are damaged.
    """
    held = getattr(config, SIZES_KEY, None)
    return None if held is None else from_data(held)


def from_data(held: Any) -> list[Setting]:
    """Return the settings that :func:`as_data` wrote.

    Raises
    ------
    CheckpointError
        If they are damaged.
    """
    if not isinstance(held, list):
        raise _damaged(held)
    found = []
    for each in held:
        try:
            module, name, value = each["module"], each["name"], each["value"]
            of_config = each["of_config"]
        except (TypeError, KeyError) as error:
            raise _damaged(each) from error
        value = tuple(value) if isinstance(value, list) else value
        numbers = value if isinstance(value, tuple) else (value,)
        if not (
            isinstance(module, str)
            and isinstance(name, str)
            and isinstance(of_config, bool)
            and numbers
            and all(type(number) is int and number > 0 for number in numbers)
        ):
            raise _damaged(each)
        found.append(Setting(module, object, name, value, of_config))
    return found


def cut(model: nn.Module, shapes: Mapping[str, Sequence[int]], settings: Sequence[Setting]) -> None:
    """Give a model, in place, the shapes of stored tensors; those that change lose their data.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of the dense sizes.
    shapes : mapping of str to sequence of int
        By the names that tensors are stored under, with the name of the base model or without.
    settings : sequence of Setting
        See :func:`sizes_of`.

    Raises
    ------
    CheckpointError
        If a setting is of no number that the model has.
    """
    prefix = str(getattr(model, "base_model_prefix", ""))
    held = dict(model.named_parameters(remove_duplicate=False))
    shared: dict[int, Any] = {}
    for stored, shape in shapes.items():
        name = _local(stored, prefix, lambda each: _place_of(model, each) is not None)
        found = None if name is None else _place_of(model, name)
        if name is None or found is None or (name in held and held[name].shape == tuple(shape)):
            continue
        owner, leaf = found
        like = held[name] if name in held else next(owner.parameters())
        empty = torch.empty(tuple(shape), dtype=like.dtype, device="meta")
        place(owner, leaf, empty, shared)
    modules = dict(model.named_modules(remove_duplicate=False))
    apply(model, [_checked(modules, each, prefix) for each in settings])
    fit(model)


def place(holder: nn.Module, leaf: str, tensor: torch.Tensor, shared: dict[int, Any]) -> None:
    """Put a tensor in the place of a module's parameter or buffer, whatever its shape.

    Parameters
    ----------
    holder : nn.Module
    leaf : str
        Name of the parameter, which may be a bias that the module does without, or of the buffer.
    tensor : Tensor
    shared : dict
        Of all calls for one model, empty at first: what modules share stays shared.
    """
    held = getattr(holder, leaf, None)
    if leaf in holder._buffers:
        holder._buffers[leaf] = tensor
        return
    made = shared.get(id(held)) if held is not None else None
    if made is None:
        trained = held.requires_grad if isinstance(held, nn.Parameter) else True
        made = nn.Parameter(tensor, requires_grad=trained)
        if held is not None:
            # Kept alive, so that no other parameter takes its place in memory.
            shared[id(held)] = made
            shared.setdefault(-1, []).append(held)
    holder._parameters[leaf] = made


def _place_of(model: nn.Module, name: str) -> tuple[nn.Module, str] | None:
    """Return the module that has a parameter, or a place for a bias, of this name."""
    path, _, leaf = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
    except AttributeError:
        return None
    there = owner._parameters.get(leaf) is not None
    free = leaf == "bias" and leaf in owner._parameters and any(True for _ in owner.parameters())
    return (owner, leaf) if there or free else None


def _local(name: str, prefix: str, is_known: Callable[[str], bool]) -> str | None:
    """Return a stored name as the model has it, which may be the base model or have one."""
    for each in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"):
        if is_known(each):
            return each
    return None


def _checked(modules: Mapping[str, nn.Module], setting: Setting, prefix: str) -> Setting:
    path = _local(setting.module, prefix, modules.__contains__)
    owner: Any = None if path is None else modules[path]
    holder = getattr(owner, "config", None) if setting.of_config else owner
    before = None if holder is None else vars(holder).get(setting.name)
    whole = type(before) is int or (
        isinstance(before, tuple | list) and all(type(each) is int for each in before)
    )
    if path is None or not whole:
        raise CheckpointError(
            f"the configuration says that {setting.name!r} of {setting.module!r} is a size, and "
            f"this {type(modules['']).__name__} has no such number; write the folder again"
        )
    return Setting(path, type(owner), setting.name, setting.value, setting.of_config)


def _damaged(held: Any) -> CheckpointError:
    return CheckpointError(
        f"the sizes of modules are said as {str(held)[:80]!r}, expected a list of objects with "
        "module, name, value and of_config; save the model again"
    )
