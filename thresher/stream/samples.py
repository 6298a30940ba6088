"""Calibration samples: what a user passes as data, as inputs of a model."""

from __future__ import annotations

__all__ = ["as_samples"]

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..core.errors import DataError
from ..parts.calibration import embedded_text, row_windows
from ..parts.limits import check_windows, fitting_length
from ..parts.rows import has_text
from ..run.files.tokenizers import read_tokenizer
from .inputs import as_input, check_input, taken_for_labels


def as_samples(
    model: nn.Module,
    data: Any = None,
    *,
    tokenizer: Any = None,
    windows: int | None = None,
    length: int | None = None,
    default: tuple[int, int] = (64, 1024),
    whole: bool = False,
) -> tuple[list[Any], dict[str, Any]]:
    """Return inputs that `model` can be called with, on its device, and a description.

    Parameters
    ----------
    model : nn.Module
        What is to be called with them.
    data : optional
        Texts: a string, or an iterable of strings or of rows with a ``text`` or a chat, such as a
        split of a data set, see :func:`~thresher.parts.rows.joined_text`. Or a tensor, or an
        iterable of inputs: tensors, tuples of arguments, or dicts of keywords. Tensors of integers
        are rows of token ids; one of floats is what the model takes first, as ``pixel_values``.
        Tuples are taken as torch's loaders make them, inputs before labels: of one that is
        longer than the arguments that the model requires, those first ones are used, at least
        one. What is optional is given by name, in a dict. Of rows with a text and its
        ``input_ids`` the ids are used. None is Python's documentation, for language models.
    tokenizer : optional
        For texts; by default loaded from where the model came from.
    windows, length : int, optional
        How many windows of how many tokens texts are cut into, at most.
    default : tuple of int, default (64, 1024)
        Those of texts where none are given.
    whole : bool, default False
        Return entries of loaders with their labels, for a loss that is given them, and have
        :func:`~thresher.stream.inputs.as_input` make inputs of them.

    Raises
    ------
    DataError
        If there is no sample, or the model cannot take them; if windows are given for what is no
        text.
    """
    described: dict[str, Any] = {"source": "data", "windows": 0}
    data = _entries(embedded_text() if data is None else data)
    are_texts, data = _with_text(data)
    if are_texts:
        count = default[0] if windows is None else windows
        tokens = fitting_length(model, default[1] if length is None else length)
        described["asked"] = count
        rows = ((f"row {index} of the data", row) for index, row in enumerate(data))
        tokenizer = tokenizer or _tokenizer(model)
        data = row_windows(rows, tokenizer, length=tokens, count=count)
    else:
        _check_not_cut(windows, length)
        if not isinstance(data, torch.Tensor):
            data = [_of_ids(model, each) for each in data]
    if isinstance(data, torch.Tensor):
        every = samples = _of_tensor(model, data)
        described["length"] = int(data.shape[-1])
    else:
        every = data
        samples = [as_input(model, sample) for sample in every]
        described |= _labels_left_out(model, every, samples)
    if not samples:
        raise DataError("the calibration data is empty")
    for sample in samples:
        check_input(model, sample)
        if isinstance(sample, Mapping) and isinstance(sample.get("input_ids"), torch.Tensor):
            check_windows(model, sample["input_ids"])
    described["windows"] = len(samples)
    device = next(model.parameters()).device
    return [_to_device(sample, device) for sample in (every if whole else samples)], described


def _check_not_cut(windows: int | None, length: int | None) -> None:
    """Raise if it is said how to cut texts where there are none."""
    for name, value in (("windows", windows), ("length", length)):
        if value is not None:
            raise DataError(
                f"{name}={value} says how texts are cut, and the data is no text: leave it out, "
                "and pass no more samples than are to be used"
            )


def _labels_left_out(
    model: nn.Module, every: Sequence[Any], samples: Sequence[Any]
) -> dict[str, str]:
    """Describe what was taken for labels, and warn where it could be meant for the model."""
    for whole, used in zip(every, samples, strict=True):
        found = taken_for_labels(model, whole, used)
        if found is not None:
            return {"labels": found}
    return {}


def _entries(data: Any) -> Any:
    """Return tensors and lists as they are, and everything else as an iterator over its entries."""
    if isinstance(data, torch.Tensor | list):
        return data
    if isinstance(data, str):
        return [data]
    if isinstance(data, Mapping):
        _check_no_splits(data)
        return _rows_of_columns(data) or [data]
    try:
        return iter(data)
    except TypeError as error:
        raise DataError(
            f"the calibration data is a {type(data).__name__}; pass texts, a tensor, or an "
            "iterable of model inputs"
        ) from error


def _rows_of_columns(table: Mapping[str, Any]) -> list[Any]:
    """Return the rows of a table by columns, as slices of data sets are, if it has texts."""
    if "input_ids" in table:
        return []
    for name, column in table.items():
        rows = [{name: each} for each in column] if isinstance(column, list | tuple) else []
        if rows and has_text(rows[0]):
            return rows
    return []


def _check_no_splits(data: Mapping[str, Any]) -> None:
    """Raise if a mapping is a data set in several splits."""
    known = sys.modules.get("datasets")
    if known and isinstance(data, known.DatasetDict | known.IterableDatasetDict):
        raise DataError(
            f"the data set has the splits {', '.join(map(repr, data))}; pass one of them, such as "
            f"data[{next(iter(data), 'train')!r}]"
        )


def _with_text(entries: Any) -> tuple[bool, Any]:
    """Return whether entries are texts, of an iterator the first, and all of them."""
    if isinstance(entries, torch.Tensor):
        return False, entries
    if isinstance(entries, list):
        return bool(entries) and all(map(has_text, entries)), entries
    for first in entries:
        return has_text(first), itertools.chain([first], entries)
    return False, entries


def _of_ids(model: nn.Module, sample: Any) -> Any:
    """Return token ids that are alone as a language model takes them."""
    takes_ids = getattr(model, "main_input_name", None) == "input_ids"
    if takes_ids and isinstance(sample, list) and all(type(each) is int for each in sample):
        sample = torch.tensor(sample)
    if not isinstance(sample, torch.Tensor) or sample.dtype not in (torch.int64, torch.int32):
        return sample
    if not takes_ids or sample.dim() > 2:
        return sample
    return {"input_ids": sample if sample.dim() == 2 else sample.unsqueeze(0)}


def _of_tensor(model: nn.Module, data: torch.Tensor) -> list[Any]:
    if not data.numel():
        return []
    if not hasattr(model, "get_input_embeddings"):
        return [data]
    if not data.is_floating_point():
        return [{"input_ids": row.unsqueeze(0)} for row in (data if data.dim() > 1 else data[None])]
    name = getattr(model, "main_input_name", "input_ids")
    if name == "input_ids":
        raise DataError(
            f"{type(model).__name__} takes token ids, and the data is a tensor of {data.dtype}; "
            "pass integers, or a list of dicts with the model's own keywords"
        )
    return [{name: row.unsqueeze(0)} for row in data]


def _to_device(sample: Any, device: torch.device) -> Any:
    if isinstance(sample, torch.Tensor):
        return sample.to(device)
    if isinstance(sample, Mapping):
        return {key: _to_device(value, device) for key, value in sample.items()}
    if isinstance(sample, list | tuple):
        return type(sample)(_to_device(value, device) for value in sample)
    return sample


def _tokenizer(model: nn.Module) -> Any:
    name = getattr(model, "name_or_path", "")
    try:
        if name:
            return read_tokenizer(name)
    except OSError as error:
        raise DataError(
            f"texts need a tokenizer, and {name!r} has none that can be read: pass tokenizer=, or "
            "windows of token ids as data="
        ) from error
    raise DataError("texts need a tokenizer: pass tokenizer=, or windows of token ids as data=")
