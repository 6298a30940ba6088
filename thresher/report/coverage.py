"""What became of a model, in the words of the terminal and of the report."""

from __future__ import annotations

__all__ = ["coverage_rows", "healing_rows"]

from typing import TYPE_CHECKING

from ..core.numbers import percent

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


def healing_rows(record: PruneRecord) -> dict[str, str]:
    """Return how a pruned model was healed, as a row; none if it was not."""
    found = record.healing
    if not found:
        return {}
    told = (
        f"{found['seconds'] / 60:.1f} of {found['minutes']:g} minutes, {found['steps']} steps on "
        f"{found['text']}, towards {found['teacher']}: divergence {found['loss_before']:.4f} to "
        f"{found['loss_after']:.4f} nats on {found['held_out']} held-out windows; errors and "
        "histograms of layers are those of pruning"
    )
    return {"healed": told}


def _share(count: int, total: int) -> str:
    return percent(count / total) if count else "0 %"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
