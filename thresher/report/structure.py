"""What was removed of a smaller model, in the words of the terminal and of the report."""

from __future__ import annotations

__all__ = ["structure_rows"]

import re
from collections import Counter
from typing import TYPE_CHECKING

from ..core.numbers import percent

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

_REASONS = 4


def structure_rows(record: PruneRecord) -> dict[str, str]:
    """Return what was removed in whole units, and what stayed whole, a sentence to a row.

    Parameters
    ----------
    record : PruneRecord
        The run; one that left zeros has no rows.

    Returns
    -------
    dict of str to str
    """
    found = record.structure
    if not found:
        return {}
    weights = found["weights"]
    rows = {
        "weights that stay": f"{weights['after']:,} of {weights['before']:,} in the layers covered "
        f"({percent(weights['after'] / weights['before'])})"
    }
    counts = Counter((_kind(name), len(units)) for name, units in found["removed"].items())
    for (kind, units), groups in counts.items():
        said = f"{_counted(units, 'unit')} in {_counted(groups, 'place')}"
        row = f"of {kind} and what goes with it"
        rows[row] = f"{rows[row]}, {said}" if row in rows else said
    if found.get("silent"):
        silent = found["silent"]
        rows["attentions whose weights are all zero"] = f"{len(silent)}, such as {silent[0]}"
    if found["whole"]:
        rows["left whole"] = _reasons(found["whole"])
    return rows


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _kind(name: str) -> str:
    """Return the layer of a group's first parameter, such as ``"gate_proj"``."""
    return name.rpartition(".")[0].rpartition(".")[2] or name


def _reasons(whole: dict[str, str]) -> str:
    """Return why slices stayed, the most frequent reasons with an example each."""
    alike: dict[str, list[str]] = {}
    for name, reason in whole.items():
        alike.setdefault(re.sub(r"\d+", "*", reason), []).append(name)
    ordered = sorted(alike.values(), key=len, reverse=True)
    said = [f"{len(names)} such as {names[0]}: {whole[names[0]]}" for names in ordered[:_REASONS]]
    more = len(ordered) - _REASONS
    return "; ".join(said) + (f"; and {more} more reasons" if more > 0 else "")
