"""Charts of what is got for a price: perplexity against another measure."""

from __future__ import annotations

__all__ = ["PRICES", "Price", "chart_of_bargains", "frontier"]

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.figure import Axis, Figure, Series
from ..core.numbers import number, percent
from .charts import Chart

if TYPE_CHECKING:
    from ..prune.comparison import ComparedModel


def frontier(points: Sequence[tuple[float, float]], more: bool) -> list[tuple[float, float]]:
    """Return the points that no other beats, or equals and beats in one, in both measures.

    Parameters
    ----------
    points : sequence of (float, float)
        The second measure is the better the lower it is.
    more : bool
        Whether more of the first measure is better.

    Returns
    -------
    list of (float, float)
        From the best first measure to the best second one, each once.
    """
    found: list[tuple[float, float]] = []
    for x, y in sorted(set(points), key=lambda point: (-point[0] if more else point[0], point[1])):
        if not found or y < found[-1][1]:
            found.append((x, y))
    return found


@dataclass(frozen=True)
class Price:
    """A measure that perplexity is drawn against.

    Parameters
    ----------
    figure : str
        Of a :class:`~thresher.prune.comparison.ComparedModel`.
    label : str
        What it is.
    scale : float
        What it is multiplied by to be in the unit.
    unit : str
        Shown after numbers.
    more : bool
        Whether more of it is better.
    """

    figure: str
    label: str
    scale: float
    unit: str
    more: bool = False


PRICES = (
    Price("stored_bytes", "weights on disk", 1e-6, "MB"),
    Price("density", "weights kept", 100, "%"),
    Price("speedup", "tokens/s over the dense model's", 1, "x", more=True),
)


def chart_of_bargains(price: Price, rows: Sequence[ComparedModel]) -> Chart | None:
    """Return perplexity against a measure, with a line along the models that no other beats.

    Parameters
    ----------
    price : Price
        The measure.
    rows : sequence of ComparedModel
        Those without the measure or without a perplexity are left out.

    Returns
    -------
    Chart or None
        None where fewer than two models are left.
    """
    points = [
        (getattr(row, price.figure) * price.scale, row.perplexity, row)
        for row in rows
        if getattr(row, price.figure) is not None and row.perplexity is not None
    ]
    if len(points) < 2:
        return None
    series: dict[str, list[tuple[float, float, ComparedModel]]] = defaultdict(list)
    for point in points:
        series[point[2].method].append(point)
    figure = Figure(
        [
            Series(
                method,
                [x for x, _, _ in held],
                [y for _, y, _ in held],
                "points",
                labels=[f"{_described(row)}: {number(y)} at {number(x)}" for x, y, row in held],
            )
            for method, held in series.items()
        ],
        Axis(f"{price.label}, {price.unit}"),
        Axis("perplexity", log=max(y for _, y, _ in points) > 10 * min(y for _, y, _ in points)),
    )
    line = frontier([(x, y) for x, y, _ in points], price.more)
    unbeaten = [x for x, _ in line], [y for _, y in line]
    figure.series.append(Series("not beaten in both", *unbeaten, "line", dotted=True))
    best, better = set(line), "more" if price.more else "fewer"
    cells = [
        [_described(row), f"{number(x)} {price.unit}", number(y), "yes" if (x, y) in best else "no"]
        for x, y, row in points
    ]
    return Chart(
        f"bargain-{price.figure}",
        f"Perplexity and {price.label}",
        f"Perplexity (lower is better) of every model against {price.label} ({better} is better).",
        figure,
        ["model", price.label, "perplexity", "not beaten"],
        cells,
    )


def _described(row: ComparedModel) -> str:
    if row.method == "dense":
        return row.method
    return f"{row.method}, {percent(row.density_asked)} {row.pattern}"
