"""What share of a model was pruned, in the words of the terminal and of the report."""

from __future__ import annotations

__all__ = ["coverage_rows"]

from typing import TYPE_CHECKING

from .units import percent

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

_NAMED = 6


def coverage_rows(record: PruneRecord) -> dict[str, str]:
    """Return what became of the model's parameters, a sentence to a row.

    Parameters
    ----------
    record : PruneRecord
        The run; records of versions that did not count parameters have no rows.

    Returns
    -------
    dict of str to str
        Parameters pruned, kept dense on purpose with the reasons, and not understood with
        their names; layers that the calibration data never reached; kept weights that are
        zero.
    """
    found = record.coverage
    if not found:
        return {}
    total = found["parameters"]
    kept = sorted(found["kept"].items(), key=lambda item: -item[1])
    reasons = ", ".join(f"{_share(count, total)} {reason}" for reason, count in kept)
    unknown = found["not_understood"]
    rows = {
        "parameters pruned": f"{_share(found['pruned'], total)} of {total:,}",
        "kept dense on purpose": reasons or "none",
        "not understood, left dense": "none"
        if not unknown
        else f"{_share(sum(unknown.values()), total)}: {_names(list(unknown))}",
    }
    if record.unseen:
        rows["never reached by the data"] = (
            f"{len(record.unseen)} layers, pruned without it or left dense: {_names(record.unseen)}"
        )
    if record.notable_zeros:
        rows["kept, and zero all the same"] = (
            f"{percent(record.notable_zeros)} of the kept weights: zero before, or without an "
            "input that is not"
        )
    return rows


def _share(count: int, total: int) -> str:
    return percent(count / total) if count else "0 %"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
