"""Pruned models that were made one by one, side by side."""

from __future__ import annotations

__all__ = ["compared_runs"]

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..core.errors import OptionError
from ..prune.comparison import DENSE, ComparedModel, Comparison
from ..prune.record import PruneRecord

#: What times of two runs must agree in to be held beside each other.
_PLACE = ("processor", "device", "threads", "batch", "new_tokens")
#: How far perplexities of one model are apart at most, in other types and on other machines.
_ROUNDING = 0.02


def compared_runs(records: Mapping[str, PruneRecord]) -> Comparison:
    """Return what several records say of the same things, for a comparison's table and report.

    Parameters
    ----------
    records : mapping of str to PruneRecord
        By what each run is called. Figures of a text count where it is that of the first run that
        was evaluated, and times where they were taken on the machine of the first: others are left
        out, and the comparison says so.

    Raises
    ------
    OptionError
        If there are fewer than two.
    """
    if len(records) < 2:
        raise OptionError("a comparison needs two runs or more; name their folders")
    first = next(iter(records.values()))
    first = next((each for each in records.values() if _evaluated(each)), first)
    text = {key: first.calibration.get(key) for key in ("source", "windows", "length")}
    text["held_out"] = first.evaluation.get("windows")
    text["evaluated"] = first.evaluation.get("text")
    timed = next((record.speed for record in records.values() if record.speed), {})
    rows = [_dense(first, timed)]
    rows += [_row(name, record, first, timed) for name, record in records.items()]
    return Comparison(
        first.model,
        text,
        rows=rows,
        versions=first.versions,
        machine=first.made.get("processor", ""),
    )


def _dense(record: PruneRecord, speed: Mapping[str, Any]) -> ComparedModel:
    held = record.evaluation
    row = ComparedModel(DENSE, DENSE, "", 1.0, 1.0, held.get("dense_perplexity"))
    row.stored_bytes, row.tasks = held.get("dense_bytes"), record.tasks.get("dense", {})
    if row.perplexity is not None:
        row.kl, row.top1_agreement = 0.0, 1.0
    if speed:
        row.tokens_per_second, row.speedup = speed["tokens_per_second"]["dense"], 1.0
        row.packed_bytes, row.dtype = speed["weight_bytes"]["dense"], speed["dense_dtype"]
        row.layouts = DENSE
    return row


def _row(
    name: str, record: PruneRecord, first: PruneRecord, timed: Mapping[str, Any]
) -> ComparedModel:
    held, speed = record.evaluation, record.speed
    row = ComparedModel(
        name,
        name,
        f"{record.method}, {record.pattern}",
        record.density_asked,
        record.density,
        held.get("pruned_perplexity"),
        kl=held.get("kl"),
        top1_agreement=held.get("top1_agreement"),
        seconds=record.seconds,
        peak_bytes=record.peak_bytes or None,
        stored_bytes=held.get("sparse_bytes"),
        tasks=record.tasks.get("pruned", {}),
    )
    if row.perplexity is None:
        row.missing["perplexity"] = "`thresher eval --save` was not run"
    elif _text_of(held) != _text_of(first.evaluation):
        why = f"evaluated on another text than the first run ({held.get('text', 'not recorded')})"
        row.perplexity = row.kl = row.top1_agreement = None
        row.missing["perplexity"] = why
    elif not _same_dense(held, first.evaluation):
        other = held["dense_perplexity"]
        why = f"of another dense model than the first run, whose perplexity is {other:.4g}"
        row.perplexity = row.kl = row.top1_agreement = None
        row.missing["perplexity"] = why
    if not speed:
        row.missing["tokens_per_second"] = "`thresher bench --save` was not run"
        return row
    if [speed.get(x) for x in _PLACE] != [timed.get(x) for x in _PLACE]:
        row.missing["tokens_per_second"] = "timed on another machine, or otherwise, than the first"
        return row
    return _timed(row, speed)


def _evaluated(record: PruneRecord) -> bool:
    return record.evaluation.get("pruned_perplexity") is not None


def _text_of(evaluation: Mapping[str, Any]) -> Any:
    """Return what tells texts apart: records of earlier versions have no digest."""
    return evaluation.get("digest") or [evaluation.get(x) for x in ("text", "windows", "length")]


def _same_dense(held: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    """Return whether two runs began with models of one perplexity, but for rounding.

    Their paths may differ, and so may what they are stored in.
    """
    one, other = held.get("dense_perplexity"), first.get("dense_perplexity")
    return one is None or other is None or math.isclose(one, other, rel_tol=_ROUNDING)


def _timed(row: ComparedModel, speed: Mapping[str, Any]) -> ComparedModel:
    least, most = speed.get("spread", (None, None))
    layouts = ", ".join(f"{count} {name}" for name, count in speed["layouts"].items())
    return replace(
        row,
        packed_bytes=speed["weight_bytes"]["packed"],
        tokens_per_second=speed["tokens_per_second"]["packed"],
        speedup=speed["speedup"],
        speedup_least=least,
        speedup_most=most,
        noisy=speed["noisy"],
        layouts=layouts or DENSE,
    )
