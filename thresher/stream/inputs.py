"""One entry of a loader or data set, as what a model is called with."""

from __future__ import annotations

__all__ = ["as_input", "check_input", "taken_for_labels"]

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..core.errors import DataError


def as_input(model: nn.Module, sample: Any) -> Any:
    """Return a sample without what it carries besides the model's inputs.

    Parameters
    ----------
    model : nn.Module
        What is to be called with it.
    sample : Any
        Of a tuple or list that is longer than the arguments that the model requires, the rest
        is taken for labels. Of a mapping, texts are left away, and plain lists of numbers
        become batches of one.
    """
    if isinstance(sample, tuple | list):
        used = tuple(sample[: _required(model, len(sample))])
        if len(used) == 1 and isinstance(used[0], Mapping) and _are_keywords(model, used[0]):
            return _of_mapping(model, used[0])
        return used if len(used) < len(sample) else sample
    return _of_mapping(model, sample) if isinstance(sample, Mapping) else sample


def check_input(model: nn.Module, sample: Any) -> None:
    """Raise unless a sample is something that a model can be called with.

    Raises
    ------
    DataError
        If it is no tensor, no arguments and no keywords, or has keywords that the model does not.
    """
    if not isinstance(sample, torch.Tensor | tuple | list | Mapping):
        raise DataError(
            f"a sample must be a tensor, a tuple of arguments or a dict of keywords, not "
            f"{type(sample).__name__} (lists of texts hold nothing else)"
        )
    if not isinstance(sample, Mapping):
        return
    named = [p.name for p in _parameters(model) if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    foreign = [key for key in sample if key not in named]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in _parameters(model))
    if foreign and not (takes_any and (len(foreign) < len(sample) or not named)):
        raise DataError(
            f"{type(model).__name__} has no argument {foreign[0]!r}; a sample that is a dict has "
            f"the model's own keywords ({', '.join(named[:6])}, ...), or in every row a text as "
            "'text'"
        )


def taken_for_labels(model: nn.Module, whole: Any, used: Any) -> str | None:
    """Say what :func:`as_input` took for labels; warn where the model has an argument for it.

    Parameters
    ----------
    model : nn.Module
        What is called.
    whole, used : Any
        The entry, and what was made of it.

    Returns
    -------
    str or None
        None if nothing was left out.
    """
    if not isinstance(whole, tuple | list):
        return None
    kept = len(used) if isinstance(used, tuple | list) else 1
    if kept == len(whole):
        return None
    said = f"left out: all but the first {kept} of the {len(whole)} entries of every tuple"
    optional = [p.name for p in _positional(model)][kept : len(whole)]
    if optional:
        warnings.warn(
            f"of tuples of {len(whole)}, all but the first {kept} are taken for labels and left "
            f"out; {type(model).__name__} has the optional argument {optional[0]!r}: if that is "
            "what was meant, pass dicts of keywords",
            stacklevel=6,
        )
    return said


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    # Wrappers that hand everything on say nothing of what they take.
    wrappers: Any = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    inner: Any = model.module if isinstance(model, wrappers) else model
    return list(inspect.signature(inner.forward).parameters.values())


def _positional(model: nn.Module) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in _parameters(model) if p.kind in kinds]


def _required(model: nn.Module, given: int) -> int:
    """Return how many of the entries of a tuple a model is given."""
    if any(p.kind is p.VAR_POSITIONAL for p in _parameters(model)):
        return given
    return max(1, sum(p.default is p.empty for p in _positional(model)))


def _are_keywords(model: nn.Module, sample: Mapping[str, Any]) -> bool:
    names = {p.name for p in _parameters(model)}
    return any(isinstance(name, str) and name in names for name in sample)


def _of_mapping(model: nn.Module, sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave away the texts that ids were made of, and make batches of rows of numbers."""
    if "input_ids" not in sample:
        return sample
    names = {p.name for p in _parameters(model)}
    kept = {k: v for k, v in sample.items() if k in names or not _is_text(k, v)}
    ids = kept["input_ids"]
    single = isinstance(ids, list) or (isinstance(ids, torch.Tensor) and ids.dim() == 1)
    if not single or not hasattr(model, "get_input_embeddings"):
        return kept
    return {name: _batch_of_one(value) for name, value in kept.items()}


def _is_text(name: str, value: Any) -> bool:
    """Return whether an entry is the text of a row, or the texts of several.

    Other lists of words mean something to some models, as names of adapters do.
    """
    words = isinstance(value, list) and bool(value) and isinstance(value[0], str)
    return isinstance(value, str) or (words and name in ("text", "texts"))


def _batch_of_one(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], int | float):
        value = torch.tensor(value)
    elif isinstance(value, list) and value and isinstance(value[0], list):
        # A batch already.
        return torch.tensor(value)
    return value.unsqueeze(0) if isinstance(value, torch.Tensor) and value.dim() < 2 else value
