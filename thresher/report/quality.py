"""What the pruned model can still do, beside the dense one, with standard errors."""

from __future__ import annotations

__all__ = ["perplexity_ratio", "quality_rows", "standard_error", "task_rows"]

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.numbers import number, percent, times

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

_NONE = "-"


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of a mean, or None where fewer than two values are given."""
    finite = all(map(math.isfinite, values))
    if len(values) < 2 or not finite:
        return None
    return statistics.stdev(values) / math.sqrt(len(values))


def perplexity_ratio(evaluation: dict[str, Any]) -> tuple[float, float | None] | None:
    """Return how many times the dense perplexity the pruned one is, and its standard error.

    The error is of the mean difference of both models' losses on the same windows, which varies
    less than either loss; by the delta method it is the ratio's after multiplication with it.

    Parameters
    ----------
    evaluation : dict
        Of a record.

    Returns
    -------
    (float, float or None) or None
        None where a perplexity was not measured; the error is None where the windows' own losses
        were not kept.
    """
    dense, pruned = evaluation.get("dense_perplexity"), evaluation.get("pruned_perplexity")
    if not dense or pruned is None:
        return None
    before, after = _losses(evaluation, "dense"), _losses(evaluation, "pruned")
    pairs = zip(before, after, strict=True) if len(before) == len(after) else ()
    error = standard_error([after - before for before, after in pairs])
    return pruned / dense, None if error is None else error * pruned / dense


def quality_rows(record: PruneRecord) -> list[list[str]]:
    """Return measures of quality: what, the dense model's, the pruned one's, and how they differ.

    Parameters
    ----------
    record : PruneRecord
        Without a pruned perplexity there are no rows.
    """
    held = record.evaluation
    if held.get("pruned_perplexity") is None:
        return []
    rows = [
        [
            "perplexity",
            _perplexity(held, "dense"),
            _perplexity(held, "pruned"),
            _ratio(held),
        ]
    ]
    measures = (
        ("most likely next token is the same", "top1_agreement", percent),
        ("KL divergence, nats per token", "kl", number),
        ("Jensen-Shannon divergence, nats (at most 0.69)", "js", number),
    )
    for label, key, text in measures:
        if held.get(key) is not None:
            rows.append([label, _NONE, _NONE, text(held[key])])
    return rows


def task_rows(record: PruneRecord) -> list[list[str]]:
    """Return accuracies: task, measure, the dense model's, the pruned one's, the difference."""
    pruned, dense = record.tasks.get("pruned", {}), record.tasks.get("dense", {})
    rows = []
    for task, measures in pruned.items():
        for measure, value in measures.items():
            before = dense.get(task, {}).get(measure)
            difference = _NONE if before is None else f"{value - before:+.4g}"
            shown = _NONE if before is None else number(before)
            rows.append([task, measure, shown, number(value), difference])
    return rows


def _losses(evaluation: dict[str, Any], which: str) -> list[float]:
    return evaluation.get(f"{which}_losses") or []


def _perplexity(evaluation: dict[str, Any], which: str) -> str:
    value = evaluation.get(f"{which}_perplexity")
    if value is None:
        return _NONE
    error = standard_error(_losses(evaluation, which))
    return number(value) + ("" if error is None else f" ± {error * value:.2g}")


def _ratio(evaluation: dict[str, Any]) -> str:
    found = perplexity_ratio(evaluation)
    if found is None:
        return _NONE
    _, error = found
    text = times(evaluation["pruned_perplexity"], evaluation["dense_perplexity"])
    return text + ("" if error is None else f" ± {error:.2g}")
