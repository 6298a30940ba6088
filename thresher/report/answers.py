"""The three questions of whoever considers a pruned model, answered in a figure each."""

from __future__ import annotations

__all__ = ["Answer", "answers", "is_costly", "size_rows", "speed_rows"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal as bytes_text

from ..core.numbers import number, times
from .quality import perplexity_ratio
from .verdict import HIGH_COST

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

_UNKNOWN = "not measured"


@dataclass(frozen=True)
class Answer:
    """One question and its answer.

    Parameters
    ----------
    name : str
        Of the section that says more.
    question : str
        As it is asked.
    figure : str
        The pruned model relative to the dense one.
    detail : str
        Both figures.
    tone : {"good", "bad", ""}
        Whether one can be glad of it; empty where that is not known.
    """

    name: str
    question: str
    figure: str
    detail: str
    tone: str


def answers(record: PruneRecord) -> list[Answer]:
    """Return whether a pruned model is still good, smaller and faster.

    Parameters
    ----------
    record : PruneRecord
        What it lacks is said to be not measured.
    """
    return [_good(record), _smaller(record), _faster(record)]


def is_costly(record: PruneRecord) -> bool | None:
    """Return whether a cut costs more than is called cheap; None where that was not measured."""
    dense = record.evaluation.get("dense_perplexity")
    pruned = record.evaluation.get("pruned_perplexity")
    if dense is None or pruned is None:
        return None
    # Not so written that a NaN would be cheap.
    return not pruned <= HIGH_COST * dense


def size_rows(record: PruneRecord) -> list[list[str]]:
    """Return what takes bytes: what, dense, pruned, and their ratio."""
    held, memory = record.evaluation, record.speed.get("weight_bytes", {})
    moved = record.speed.get("moved_bytes", {})
    found = [
        ("weights on disk", held.get("dense_bytes"), held.get("sparse_bytes")),
        (
            "pruned layers on disk",
            held.get("pruned_layers_dense_bytes"),
            held.get("pruned_layers_sparse_bytes"),
        ),
        ("weights in memory, packed", memory.get("dense"), memory.get("packed")),
        ("linear weights read per token, packed", moved.get("dense"), moved.get("packed")),
    ]
    return [
        [what, bytes_text(dense), bytes_text(pruned), times(pruned, dense)]
        for what, dense, pruned in found
        if dense and pruned
    ]


def speed_rows(record: PruneRecord) -> list[list[str]]:
    """Return what was timed: what, dense, packed, and how many times faster."""
    held = record.speed
    if not held:
        return []
    rates = held["tokens_per_second"]
    rows = [["tokens/s", number(rates["dense"]), number(rates["packed"]), _speedup(held)]]
    seconds = held.get("layer_seconds", {})
    for kind, dense in sorted(seconds.get("dense", {}).items(), key=lambda item: -item[1]):
        packed = seconds["packed"].get(kind)
        if packed:
            cells = (number(1e3 * dense), number(1e3 * packed), times(dense, packed))
            rows.append([f"{kind}, ms per token", *cells])
    return rows


def _good(record: PruneRecord) -> Answer:
    question = "Is it still good?"
    held, found = record.evaluation, perplexity_ratio(record.evaluation)
    if found is None:
        return Answer("good", question, _UNKNOWN, "perplexity beside the dense model's", "")
    dense, pruned = held["dense_perplexity"], held["pruned_perplexity"]
    error = "" if found[1] is None else f", ratio ± {found[1]:.2g}"
    costly = is_costly(record)
    return Answer(
        "good",
        question,
        f"{times(pruned, dense)} {'perplexity: costly' if costly else 'perplexity'}",
        f"{number(dense)} → {number(pruned)}{error}",
        "bad" if costly else "good",
    )


def _smaller(record: PruneRecord) -> Answer:
    question, held = "Is it smaller?", record.evaluation
    dense, sparse = held.get("dense_bytes"), held.get("sparse_bytes")
    if not dense or not sparse:
        return Answer("smaller", question, _UNKNOWN, "bytes on disk", "")
    tone = "good" if sparse < dense else "bad"
    detail = f"{bytes_text(dense)} → {bytes_text(sparse)}"
    return Answer("smaller", question, f"{times(sparse, dense)} on disk", detail, tone)


def _faster(record: PruneRecord) -> Answer:
    question, held = "Is it faster?", record.speed
    if not held:
        return Answer("faster", question, _UNKNOWN, "tokens/s beside the dense model's", "")
    rates = held["tokens_per_second"]
    busy = ", on a busy machine" if held["noisy"] else ""
    detail = f"{number(rates['dense'])} → {number(rates['packed'])} tokens/s{busy}"
    tone = "" if held["noisy"] else "good" if held["speedup"] > 1 else "bad"
    return Answer("faster", question, f"{times(held['speedup'], 1)} tokens/s", detail, tone)


def _speedup(held: dict[str, Any]) -> str:
    least, most = held.get("spread", (None, None))
    told = times(held["speedup"], 1)
    return told if least is None else f"{told} ({number(least)} to {number(most)})"
