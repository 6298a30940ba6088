"""What a pruning run did and cost, in plain words."""

from __future__ import annotations

__all__ = ["HIGH_COST", "Verdict", "judge", "smaller_cuts"]

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal as bytes_text

from ..core.numbers import number, percent, removed, times
from ..core.paths import model_name

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

#: Pruned over dense perplexity above which the report warns.
HIGH_COST = 1.2

NOT_EVALUATED = (
    "What it cost was not measured. For language models, `thresher prune` measures perplexity "
    "against the dense model unless given --no-evaluate, and `thresher eval FOLDER --text FILE "
    "--dense MODEL --save` does so later."
)
NO_CURVE = (
    "What a smaller cut costs was not measured: `thresher prune --curve` measures perplexity at "
    "20 to 50 % removed, with patterns whose density is free (N:M has only one)."
)


@dataclass(frozen=True)
class Verdict:
    """The first lines of a report.

    Parameters
    ----------
    headline : str
        What was pruned, how, and how much is left.
    sentences : list of str
        Density, cost and size.
    warning : str
        What to beware of, and what a smaller cut would cost; empty if there is nothing.
    """

    headline: str
    sentences: list[str]
    warning: str


def judge(record: PruneRecord) -> Verdict:
    """Put a record in plain words.

    Parameters
    ----------
    record : PruneRecord
        Any of its evaluation may be missing.

    Returns
    -------
    Verdict
        With a warning when the pruned perplexity is more than :data:`HIGH_COST` times the
        dense one, or not finite.
    """
    return Verdict(
        headline=(
            f"{model_name(record.model)}: {percent(record.density)} of the weights kept by "
            f"{record.method}"
        ),
        sentences=[_reached(record), _cost(record.evaluation), *_sizes(record.evaluation)],
        warning=_warning(record),
    )


def smaller_cuts(record: PruneRecord) -> list[dict[str, Any]]:
    """Return the points of the measured curve that keep more weights, smallest cut first.

    Parameters
    ----------
    record : PruneRecord
        Read for the ``curve`` of its evaluation.

    Returns
    -------
    list of dict
        ``density``, ``perplexity`` and ``method``; empty if there is no curve.
    """
    points = record.evaluation.get("curve") or []
    kept_more = [point for point in points if point["density"] > record.density + 1e-3]
    return sorted(kept_more, key=lambda point: -point["density"])


def _reached(record: PruneRecord) -> str:
    total = sum(layer.size for layer in record.layers)
    return (
        f"{len(record.layers)} layers with {total:,} weights were pruned to a density of "
        f"{percent(record.density)} ({percent(record.density_asked)} was asked), pattern "
        f"{record.pattern}."
    )


def _cost(evaluation: dict[str, Any]) -> str:
    dense, pruned = evaluation.get("dense_perplexity"), evaluation.get("pruned_perplexity")
    if pruned is None:
        return NOT_EVALUATED
    if dense is None:
        return (
            f"Perplexity is {number(pruned)}. The dense model's was not measured: `thresher eval` "
            "with --dense compares the two."
        )
    verb = "rose" if pruned > dense else "fell" if pruned < dense else "went"
    text = f"Perplexity {verb} from {number(dense)} to {number(pruned)} ({times(pruned, dense)})"
    if evaluation.get("top1_agreement") is not None:
        text += f"; {percent(evaluation['top1_agreement'])} of the most likely next tokens agree"
    if evaluation.get("kl") is not None:
        text += f"; mean KL divergence {number(evaluation['kl'])} nats per token"
    if evaluation.get("js") is not None:
        text += f", Jensen-Shannon {number(evaluation['js'])} (of at most 0.69)"
    return text + "."


def _sizes(evaluation: dict[str, Any]) -> list[str]:
    parts = (("the weights", ""), ("the pruned layers", "pruned_layers_"))
    changes = []
    for what, prefix in parts:
        dense = evaluation.get(f"{prefix}dense_bytes")
        sparse = evaluation.get(f"{prefix}sparse_bytes")
        if dense and sparse:
            change = f"{bytes_text(dense)} to {bytes_text(sparse)} ({times(sparse, dense)})"
            changes.append(f"{what} went from {change}")
    return [f"On disk {', '.join(changes)}."] if changes else []


def _warning(record: PruneRecord) -> str:
    dense = record.evaluation.get("dense_perplexity")
    pruned = record.evaluation.get("pruned_perplexity")
    if dense is None or pruned is None or pruned <= HIGH_COST * dense:
        return ""
    if not math.isfinite(pruned):
        opening = "The pruned model's perplexity is not a finite number: it is broken."
    else:
        opening = (
            f"This cut is costly: the pruned model's perplexity is {times(pruned, dense)} the "
            "dense one's."
        )
    return f"{opening} {_advice(smaller_cuts(record), dense)}"


def _advice(cuts: list[dict[str, Any]], dense: float) -> str:
    if not cuts:
        return NO_CURVE
    listed = "; ".join(
        f"{removed(point['density'])} removed: {number(point['perplexity'])} "
        f"({times(point['perplexity'], dense)})"
        for point in cuts
    )
    cheap = [point for point in cuts if point["perplexity"] <= HIGH_COST * dense]
    if cheap:
        closing = f"The largest cut measured within {HIGH_COST}x is {removed(cheap[-1]['density'])}"
    else:
        closing = f"No cut measured stays within {HIGH_COST}x"
    methods = sorted({str(point["method"]) for point in cuts if point.get("method")})
    by = f" (by {', '.join(methods)})" if methods else ""
    return f"Smaller cuts cost{by}: {listed}. {closing}."
