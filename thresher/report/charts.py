"""The charts of the report: figures with their numbers as a table, drawn as SVG."""

from __future__ import annotations

__all__ = ["Chart", "histograms"]

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from ..core.drawing import draw
from ..core.figure import Axis, Cells, Figure, Series
from .kinds import HISTOGRAM_LIMIT, Kind, by_kind

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

#: More kinds than this are gathered.
_MOST_KINDS = 12


@dataclass(frozen=True)
class Chart:
    """A figure, and its numbers as a table for those who cannot see it.

    Parameters
    ----------
    name : str
        Unique in the page.
    title : str
        Heading.
    caption : str
        What is drawn against what, in a sentence.
    figure : Figure or Cells
        Without a title.
    columns : list of str
        Heads of the table.
    rows : list of list of str
        The numbers.
    height : float, default 300
        In CSS pixels where the chart is 460 wide.
    """

    name: str
    title: str
    caption: str
    figure: Figure | Cells
    columns: list[str]
    rows: list[list[str]]
    height: float = 300

    @property
    def svg(self) -> Markup:
        """The picture, as an element of the page."""
        return Markup(draw(self.figure, self.name, self.caption, height=self.height))


def histograms(record: PruneRecord) -> list[Chart]:
    """Return a histogram of the weights before and after for every kind that has one.

    Parameters
    ----------
    record : PruneRecord
        Layers without a histogram are left out.

    Returns
    -------
    list of Chart
        In the model's order.
    """
    charts = []
    for index, kind in enumerate(by_kind(record.layers, _MOST_KINDS)):
        if counts := kind.histogram():
            charts.append(_histogram(f"histogram-{index}", kind, counts))
    return charts


def _histogram(name: str, kind: Kind, counts: dict[str, list[float]]) -> Chart:
    # A line over an area shows both where an update has made some value more frequent than before.
    figure = Figure(
        [
            Series("before", counts["centers"], counts["dense"], "area"),
            Series("after", counts["centers"], counts["pruned"], "steps"),
        ],
        Axis("weight / its layer's deviation"),
        Axis("weights"),
    )
    caption = (
        f"Weights of {kind.name} by value before pruning and the survivors after it, in standard "
        f"deviations of each layer's dense weights; those beyond {HISTOGRAM_LIMIT:g} are counted "
        "at the ends."
    )
    rows = [
        [f"{center:.2f}", f"{int(before):,}", f"{int(after):,}"]
        for center, before, after in zip(
            counts["centers"], counts["dense"], counts["pruned"], strict=True
        )
    ]
    return Chart(name, kind.name, caption, figure, ["value", "before", "after"], rows, height=240)
