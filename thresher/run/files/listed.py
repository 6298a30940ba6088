"""What a configuration says about the storage of weights, checked entry by entry."""

from __future__ import annotations

__all__ = ["Listed", "check_group", "listed_weights", "short"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.errors import CheckpointError

#: Of columns in a group: a position takes a byte at most.
_MOST_GROUP = 256


@dataclass(frozen=True)
class Listed:
    """One weight: the name of its layout, the settings and the names of the buffers."""

    layout: str
    settings: Mapping[str, int]
    tensors: tuple[str, ...]


def check_group(group: Any) -> None:
    """Raise CheckpointError unless this is M of N:M positions, or None."""
    if group is not None and (type(group) is not int or not 1 <= group <= _MOST_GROUP):
        raise CheckpointError(
            f"'group' in the configuration is {short(group)}, expected a number of columns from 1 "
            f"to {_MOST_GROUP}; write the folder again"
        )


def listed_weights(layouts: list[Any] | None) -> dict[str, Listed]:
    """Return how each weight that a configuration's ``layouts`` lists is stored.

    Raises
    ------
    CheckpointError
        If it is not such a list, or lists a weight twice.
    """
    named: dict[str, Listed] = {}
    if layouts is not None and not isinstance(layouts, list):
        raise CheckpointError(
            f"'layouts' in the configuration is {short(layouts)}, expected a list; write the "
            "folder again"
        )
    for entry in layouts or ():
        if not _is_entry(entry):
            raise CheckpointError(
                f"entry {short(entry)} of 'layouts' in the configuration is damaged: it needs a "
                "layout, settings that are integers, and lists of tensors and weights, each named "
                "once; write the folder again"
            )
        stored = Listed(entry["layout"], dict(entry["settings"]), tuple(entry["tensors"]))
        if twice := sorted(named.keys() & set(entry["weights"])):
            raise CheckpointError(
                f"'layouts' in the configuration lists {twice[0]!r} twice; write the folder again"
            )
        named |= dict.fromkeys(entry["weights"], stored)
    return named


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("layout"), str):
        return False
    settings = entry.get("settings")
    if not isinstance(settings, dict) or any(type(v) is not int for v in settings.values()):
        return False
    named = _are_names(entry.get("tensors")) and _are_names(entry.get("weights"))
    return named and "shape" not in entry["tensors"]


def _are_names(value: Any) -> bool:
    """Return whether this is a list of words, each of which is there once."""
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        return False
    return len(set(value)) == len(value)


def short(value: Any) -> str:
    """Return what a configuration holds, for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
