"""Smaller transformers models that their own configurations describe, to be loaded anywhere."""

from __future__ import annotations

__all__ = [
    "agree",
    "fit_configuration",
    "fitting",
    "head_width",
    "of_configuration",
    "sizes_said",
    "stock_groups",
]

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..core.errors import LayerError
from ..parts.groups.find import Coupled, Group
from ..parts.groups.shrink import kind_of, shrink
from ..parts.groups.trace import tensors_of

Run = Callable[[nn.Module], Any]
#: Configurations that are tried.
_TRIES = 128


def stock_groups(
    model: nn.Module, coupled: Coupled, groups: Sequence[Group], run: Run
) -> tuple[list[Group], dict[str, str]]:
    """Return the groups of kinds that a configuration can say a smaller number of.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    coupled : Coupled
        Its coupled groups.
    groups : sequence of Group
        Those to choose from.
    run : callable
        Calls a model on an example.

    Returns
    -------
    groups : list of Group
    others : dict of str to str
        By the name of the first of its kind, why a kind cannot be said.
    """
    kinds: dict[Any, list[Group]] = {}
    for group in groups:
        kinds.setdefault((kind_of(model, group), group.size), []).append(group)
    found, others = [], {}
    for members in kinds.values():
        step = members[0].step
        removed = {group.name: range(group.size - step, group.size) for group in members}
        try:
            small = shrink(model, coupled, removed, run).module
            fit_configuration(small, coupled, removed, run)
        except LayerError as error:
            others[members[0].name] = str(error)
        else:
            found += members
    names = {group.name for group in found}
    return [group for group in groups if group.name in names], others


def fit_configuration(
    small: Any, coupled: Coupled, removed: Mapping[str, Sequence[int]], run: Run
) -> Any:
    """Return the model that transformers builds of a configuration which says a smaller shape.

    It has the smaller model's parameters, of the same shapes, and gives the same outputs.

    Parameters
    ----------
    small : transformers.PreTrainedModel
        What is left of a model, with its old configuration.
    coupled, removed
        What was removed, of the model's coupled groups.
    run : callable
        Calls a model on an example.

    Raises
    ------
    LayerError
        If no configuration says what the model has become.
    """
    expected = tensors_of(run(small))
    made = of_configuration(
        small, _changes(small, coupled, removed), lambda it: agree(tensors_of(run(it)), expected)
    )
    if made is not None:
        return made
    first = ", ".join(f"{len(units)} less of {name}" for name, units in [*removed.items()][:3])
    raise LayerError(f"no configuration of {type(small).__name__} says what is left ({first})")


def of_configuration(
    small: Any, changes: Iterable[Mapping[str, int]], is_right: Callable[[Any], bool]
) -> Any:
    """Return the model of the first changed configuration that has a smaller model's shapes.

    Parameters
    ----------
    small : transformers.PreTrainedModel
        What is left of a model, with its old configuration.
    changes : iterable of mapping of str to int
        What to change of the configuration, more likely changes first.
    is_right : callable
        Says whether a model is what it should be, which has the smaller one's parameters.

    Returns
    -------
    transformers.PreTrainedModel or None
        None where no change makes such a model.
    """
    for each in fitting(small, changes):
        made = _filled(_changed(small.config, each), small)
        if is_right(made):
            return made
    return None


def fitting(small: Any, changes: Iterable[Mapping[str, int]]) -> Iterator[Mapping[str, int]]:
    """Yield the changes of a configuration that make a model of a smaller one's shapes.

    Parameters
    ----------
    small, changes
        See :func:`of_configuration`; the model may be without data.
    """
    wanted = _shapes(small)
    for each in itertools.islice(changes, _TRIES):
        built = _built(small, each)
        if built is not None and _shapes(built) == wanted:
            yield each


def sizes_said(config: Any) -> dict[str, int]:
    """Return the whole numbers of a configuration, by name."""
    return {n: v for n, v in vars(config).items() if type(v) is int and not n.startswith("_")}


def _filled(config: Any, small: Any) -> Any:
    """Return a new model that has the parameters of the smaller one, and its state."""
    from accelerate import init_empty_weights

    # Drawing weights takes longer than all else; buffers that no file holds are computed.
    with init_empty_weights(include_buffers=False):
        made = type(small)(config)
    for path, module in small.named_modules():
        copied = made.get_submodule(path)
        copied._parameters.update(module._parameters)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                kept = name not in module._non_persistent_buffers_set
                copied._buffers[name] = (buffer if kept else copied._buffers[name]).to(buffer)
    if hasattr(small, "generation_config"):
        made.generation_config = copy.deepcopy(small.generation_config)
    made.config._name_or_path = small.config._name_or_path
    return made.train(small.training)


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _built(small: Any, changes: Mapping[str, int]) -> Any:
    """Return a model without data, of a changed configuration; None where that makes no sense.

    What a folder says is checked more strictly than what is set: that heads divide the width.
    """
    try:
        type(small.config).from_dict({**small.config.to_dict(), **changes})
        with torch.device("meta"):
            return type(small)(_changed(small.config, changes))
    except Exception:  # of configurations of all kinds, each has errors of its own
        return None


def _changed(dense: Any, changes: Mapping[str, int]) -> Any:
    config = copy.deepcopy(dense)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def _changes(
    small: Any, coupled: Coupled, removed: Mapping[str, Sequence[int]]
) -> Iterator[dict[str, int]]:
    """Yield what to change of a configuration, more likely changes first."""
    dense = small.config
    masks = coupled.masks(removed)
    became: dict[int, set[int]] = {}
    for axes in coupled.trace.frames.values():
        for axis in {id(axis.same): axis for axis in axes}.values():
            if any(free in masks for free in axis.free()):
                became.setdefault(axis.size, set()).add(int(axis.kept(masks).sum()))
    said = sizes_said(dense)
    candidates = _shaping(small, {n: became.get(v, set()) - {v} for n, v in said.items()})
    yield from _combined(candidates, head_width(dense))
    # What is not said is computed, such as a width as four times another.
    unsaid = {n for n, v in vars(dense).items() if v is None and not n.startswith("_")}
    every = set.union(*became.values()) if became else set()
    more = _shaping(small, dict.fromkeys(sorted(unsaid), every), whole=True)
    yield from _combined(more, None)
    yield from _combined([*candidates, *more], head_width(dense))


def _shaping(
    small: Any, values: Mapping[str, set[int]], *, whole: bool = False
) -> list[tuple[str, int]]:
    """Return which changes of a configuration change the shapes of its model.

    Numbers that are equal by chance, such as of a token, shape nothing. A change that makes no
    sense by itself, such as of heads, may with another; unless what is left has to be a `whole`.
    """
    before = _shapes(_built(small, {}))
    found = []
    for name, news in values.items():
        for new in sorted(news, reverse=True):
            built = _built(small, {name: new})
            if (built is None and not whole) or (built is not None and _shapes(built) != before):
                found.append((name, new))
    return found


def _combined(candidates: Sequence[tuple[str, int]], width: int | None) -> Iterator[dict[str, int]]:
    for count in dict.fromkeys((1, *range(len(candidates), 1, -1))):
        for some in itertools.combinations(candidates, count):
            if len({name for name, _ in some}) == len(some):
                yield dict(some)
                if width is not None:
                    yield dict(some) | {"head_dim": width}


def head_width(config: Any) -> int | None:
    """Return the width of a head that a configuration may leave to be computed."""
    heads = getattr(config, "num_attention_heads", None)
    if not heads or getattr(config, "hidden_size", None) is None:
        return None
    return int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def agree(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    """Return whether outputs are the same but for rounding."""
    if [t.shape for t in found] != [t.shape for t in expected]:
        return False
    for a, b in zip(found, expected, strict=True):
        scale = max(1.0, float(b.abs().max())) if b.numel() and b.is_floating_point() else 1.0
        if b.is_floating_point() and float((a - b).abs().max()) > 1e-3 * scale:
            return False
    return True
