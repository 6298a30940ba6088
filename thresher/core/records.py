"""Dataclasses that were written as JSON, read back with their types checked."""

from __future__ import annotations

__all__ = ["CARD_BEGINS", "kind_of", "restored", "restored_from"]

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from .errors import CheckpointError
from .files import read_json

#: How the sentence begins that tells the card of a pruned folder from a card of the user's own.
CARD_BEGINS = "By `thresher prune`, with this recipe;"
_Record = TypeVar("_Record")


def kind_of(name: str) -> str:
    """Return what a layer is among those of its block: the last part of its name.

    Parameters
    ----------
    name : str
        A path such as ``"model.layers.0.self_attn.q_proj"``; experts have a number in brackets.
    """
    return name.rpartition(".")[2].partition("[")[0]


def restored(kind: type[_Record], data: Any) -> _Record:
    """Return the dataclass that JSON data stand for, written here or by another version.

    Keys that this version does not know are left out.

    Parameters
    ----------
    kind : type
        A dataclass of strings, numbers, lists, dictionaries and other such dataclasses.
    data : object
        What was read.

    Raises
    ------
    ValueError
        If a value is missing or of another type; the message names it.
    """
    return typing.cast(_Record, _dataclass(kind, data, kind.__name__))


def restored_from(file: Path, kind: type[_Record], what: str, remedy: str) -> _Record:
    """Return the dataclass that a file holds as JSON.

    Parameters
    ----------
    file : Path
        To read.
    kind : type
        See :func:`restored`.
    what : str
        What the file is to be, such as ``"the state of a run"``.
    remedy : str
        What to do where it is not.

    Raises
    ------
    CheckpointError
        If the file was damaged, or written by another version.
    """
    try:
        return restored(kind, read_json(file, remedy))
    except ValueError as error:
        raise CheckpointError(f"{str(file)!r} is not {what}: {error}; {remedy}") from error


def _dataclass(kind: Any, data: Any, where: str) -> Any:
    _check(isinstance(data, dict), where, "an object", data)
    hints = typing.get_type_hints(kind)
    found = {}
    for each in dataclasses.fields(kind):
        if each.name in data:
            found[each.name] = _value(hints[each.name], data[each.name], f"{where}.{each.name}")
        elif each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}.{each.name} is missing")
    return kind(**found)


def _value(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, data, where)
    if origin is list:
        _check(isinstance(data, list), where, "a list", data)
        return [_value(arguments[0], each, f"{where}[{i}]") for i, each in enumerate(data)]
    if origin is dict:
        _check(isinstance(data, dict), where, "an object", data)
        return {key: _value(arguments[1], each, f"{where}[{key!r}]") for key, each in data.items()}
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in arguments:
            return None
        return _value(next(each for each in arguments if each is not type(None)), data, where)
    allowed = (int, float) if kind is float else (kind,)
    _check(type(data) in allowed, where, kind.__name__, data)
    return data


def _check(good: bool, where: str, expected: str, found: Any) -> None:
    if not good:
        raise ValueError(f"{where} is {type(found).__name__}, expected {expected}")
