"""What a cut costs for what it gains: perplexity relative to the dense model's."""

from __future__ import annotations

__all__ = ["charts_of_decision"]

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.figure import Axis, Figure, Line, Series
from ..core.numbers import number, percent, removed, times
from .charts import Chart
from .verdict import HIGH_COST

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

_THIS = "this model"
#: Times dense from which a model is broken, and how much no longer matters.
_BROKEN = 1e6


@dataclass(frozen=True)
class _Point:
    """A model: the series that it is of, what was gained, perplexity, and what it is."""

    series: str
    gained: float
    perplexity: float
    text: str


def charts_of_decision(record: PruneRecord) -> list[Chart]:
    """Return perplexity relative to dense against bytes on disk, and against tokens/s.

    Parameters
    ----------
    record : PruneRecord
        Other cuts than its own come from the ``curve`` of its evaluation: they were made of the
        same weights from the same inputs. Where their bytes were not noted they are drawn against
        the weights removed.

    Returns
    -------
    list of Chart
        None for what was not measured.
    """
    held = record.evaluation
    if not held.get("dense_perplexity") or held.get("pruned_perplexity") is None:
        return []
    charts = []
    cuts = _cuts(record)
    if len(cuts) > 2:
        charts.append(_chart(record, cuts, *_axis_of_cuts(record)))
    if record.speed:
        rates = record.speed["tokens_per_second"]
        timed = _ends(record, rates["dense"], rates["packed"])
        charts.append(_chart(record, timed, "speed", "tokens/s", "Quality and speed"))
    return charts


def _axis_of_cuts(record: PruneRecord) -> tuple[str, str, str]:
    if _by_bytes(record):
        return "size", "weights on disk, MB", "Quality and size"
    return "removed", "weights removed, %", "Quality and what was removed"


def _by_bytes(record: PruneRecord) -> bool:
    held = record.evaluation
    known = [held.get("dense_bytes"), held.get("sparse_bytes")]
    known += [point.get("bytes") for point in held.get("curve") or []]
    return all(known)


def _cuts(record: PruneRecord) -> list[_Point]:
    """Return the dense model, the cuts that were measured, and this model last."""
    held = record.evaluation
    by_bytes = _by_bytes(record)
    ends = (
        (held["dense_bytes"] / 1e6, held["sparse_bytes"] / 1e6)
        if by_bytes
        else (0.0, 100 * (1 - record.density))
    )
    dense, this = _ends(record, *ends)
    points = [
        _Point(
            str(point.get("method") or record.method),
            point["bytes"] / 1e6 if by_bytes else 100 * (1 - point["density"]),
            point["perplexity"],
            f"{removed(point['density'])} removed",
        )
        for point in held.get("curve") or []
    ]
    return [dense, *points, this]


def _ends(record: PruneRecord, dense: float, this: float) -> list[_Point]:
    held = record.evaluation
    own = f"{_THIS}, {percent(1 - record.density)} removed"
    return [
        _Point("dense", dense, held["dense_perplexity"], "dense"),
        _Point(_THIS, this, held["pruned_perplexity"], own),
    ]


def _chart(record: PruneRecord, points: list[_Point], name: str, gain: str, title: str) -> Chart:
    base = record.evaluation["dense_perplexity"]
    figure = Figure(
        x=Axis(gain),
        y=Axis("perplexity, times dense", log=True, unit="x"),
        lines=[Line(HIGH_COST, f"{HIGH_COST}x dense")],
    )
    for series, held in _lines(record, points).items():
        figure.series.append(
            Series(
                series,
                [point.gained for point in held],
                [_drawn(point.perplexity / base) for point in held],
                "points" if len(held) < 2 else "line and points",
                labels=[
                    f"{point.text}: {times(point.perplexity, base)} at {number(point.gained)} "
                    f"{gain.rpartition(', ')[2]}"
                    for point in held
                ],
                star=series == _THIS,
            )
        )
    others = len(points) > 2
    caption = (
        f"Perplexity relative to the dense model's (logarithmic, lower is better) against {gain}. "
        f"The star is this model; the dotted line is {HIGH_COST} times dense."
    )
    if others:
        caption += (
            " The other cuts were made of the same weights from the same inputs, which have gone "
            "through this model's blocks."
        )
    if any(not point.perplexity / base < _BROKEN for point in points):
        caption += " Models beyond a million times dense are among the numbers alone."
    rows = [
        [p.text, number(p.gained), number(p.perplexity), times(p.perplexity, base)] for p in points
    ]
    return Chart(name, title, caption, figure, ["model", gain, "perplexity", "times dense"], rows)


def _drawn(ratio: float) -> float:
    return ratio if ratio < _BROKEN else math.inf


def _lines(record: PruneRecord, points: list[_Point]) -> dict[str, list[_Point]]:
    """Return the series: a line for each method from the dense model on, and the star."""
    dense, *cuts, this = points
    series: dict[str, list[_Point]] = defaultdict(list)
    for point in cuts:
        series[point.series].append(point)
    lines = {}
    for method, held in series.items():
        # The star is of the same method, and so on its line.
        own = [this] if method == record.method else []
        lines[method] = sorted([dense, *held, *own], key=lambda point: point.gained)
    return {**(lines or {"dense": [dense]}), _THIS: [this]}
