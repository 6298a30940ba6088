"""The charts of the report, as plotly figures without colours of their own.

Colours come from the two templates of :func:`templates`, of which the page applies the one
that the reader's system prefers.
"""

from __future__ import annotations

__all__ = [
    "Chart",
    "chart_of_curve",
    "charts_by_depth",
    "charts_by_kind",
    "histograms",
    "templates",
]

import html
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
import plotly.io as pio

from .kinds import HISTOGRAM_LIMIT, Kind, by_kind
from .units import number, percent, removed

if TYPE_CHECKING:
    from ..prune.record import LayerRecord, PruneRecord

#: More kinds than this are drawn as one line through all layers, or gathered.
_MOST_LINES = 8
_MOST_KINDS = 12

# Distinguishable with the common colour deficiencies, and at least 3:1 against the page.
_LIGHT = ["#0063a8", "#c2410c", "#007a5a", "#a5357f", "#8a6100", "#5b4bb7", "#4d5866", "#b3261e"]
_DARK = ["#62b6f7", "#ff9a5c", "#3ecf9f", "#f08cc8", "#e3b341", "#b0a3ff", "#a9b4c2", "#ff8a80"]


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
    figure : plotly.graph_objects.Figure
        Without a title.
    columns : list of str
        Heads of the table.
    rows : list of list of str
        The numbers.
    """

    name: str
    title: str
    caption: str
    figure: go.Figure
    columns: list[str]
    rows: list[list[str]]

    @property
    def json(self) -> str:
        """The figure as JSON that is safe inside a script element."""
        return str(pio.to_json(self.figure, validate=False, engine="json"))


def templates() -> dict[str, Any]:
    """Return the plotly templates for a light and for a dark page.

    Returns
    -------
    dict of str to dict
        ``light`` and ``dark``, as JSON values.
    """
    return {
        "light": _template("plotly_white", _LIGHT, "#1b1f24", "#d8dde3"),
        "dark": _template("plotly_dark", _DARK, "#e8ebef", "#3b424b"),
    }


def _template(base: str, colorway: list[str], ink: str, grid: str) -> Any:
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "zerolinecolor": grid,
        "automargin": True,
        "ticklabelstandoff": 4,
    }
    own = go.layout.Template(
        layout={
            "colorway": colorway,
            "font": {"color": ink, "family": "system-ui, sans-serif", "size": 13},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
            "dragmode": False,
            "separators": ".\u202f",
        }
    )
    merged = pio.templates.merge_templates(pio.templates[base], own)
    # Default styles of trace types that the report does not draw would only add weight.
    return {"layout": merged.layout.to_plotly_json()}


def chart_of_curve(record: PruneRecord) -> Chart | None:
    """Return perplexity against the share of weights removed, or None if it was not measured.

    Parameters
    ----------
    record : PruneRecord
        Read for the ``curve`` of its evaluation.

    Returns
    -------
    Chart or None
    """
    points = record.evaluation.get("curve") or []
    if not points:
        return None
    dense = record.evaluation.get("dense_perplexity")
    own = record.evaluation.get("pruned_perplexity")
    star = (100 * (1 - record.density), own) if own else None
    series = defaultdict(list)
    for point in sorted(points, key=lambda p: -p["density"]):
        series[str(point.get("method") or record.method)].append(point)
    figure = go.Figure()
    for method, held in series.items():
        start = [(0.0, dense)] if dense else []
        steps = start + [(100 * (1 - p["density"]), p["perplexity"]) for p in held]
        if star and method == record.method:
            steps = sorted([*steps, star])
        _add_line(figure, method, [x for x, _ in steps], [y for _, y in steps])
    if dense:
        figure.add_hline(dense, line={"dash": "dot", "width": 1})
    if star:
        _add_star(figure, *star)
    drawn = [p["perplexity"] for p in points] + ([dense] if dense else [])
    figure.update_yaxes(
        title="perplexity", type="log" if max(drawn) > 10 * min(drawn) else "linear"
    )
    figure.update_xaxes(title="weights removed", ticksuffix=" %")
    rows = [
        [m, removed(p["density"]), number(p["perplexity"])] for m, h in series.items() for p in h
    ]
    if dense:
        rows.insert(0, ["dense", "0 %", number(dense)])
    return Chart(
        "curve",
        "What other cuts cost",
        "Perplexity (lower is better) against the share of weights removed. The star is this "
        "model, the dotted line the dense one. The other cuts were made of the same weights from "
        "the same inputs, which have gone through this model's blocks.",
        figure,
        ["method", "removed", "perplexity"],
        rows,
    )


def charts_by_depth(record: PruneRecord) -> list[Chart]:
    """Return density and reconstruction error along the depth of the model.

    Parameters
    ----------
    record : PruneRecord
        With at least one layer.

    Returns
    -------
    list of Chart
        Density, then error: a line a kind by block, or one through all layers when there are
        many kinds or one block only.
    """
    return [_by_depth(record, *measure) for measure in _MEASURES]


def charts_by_kind(record: PruneRecord) -> list[Chart]:
    """Return density and reconstruction error by kind of projection.

    Parameters
    ----------
    record : PruneRecord
        With at least one layer.

    Returns
    -------
    list of Chart
        Density, then error; the smallest of many kinds are drawn together.
    """
    kinds = by_kind(record.layers, _MOST_KINDS)
    return [_by_kind(kinds, *measure) for measure in _MEASURES]


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


_Measure = Callable[["LayerRecord | Kind"], float]
_MEASURES: list[tuple[str, str, _Measure, Callable[[float], str]]] = [
    ("density", "density", lambda part: part.density, percent),
    ("error", "relative error of the output", lambda part: part.error, "{:.2g}".format),
]


def _by_depth(
    record: PruneRecord, name: str, label: str, value: _Measure, text: Callable[[float], str]
) -> Chart:
    kinds = by_kind(record.layers)
    blocks = sorted({layer.block for layer in record.layers})
    figure = go.Figure()
    if len(kinds) > _MOST_LINES or len(blocks) < 2:
        columns, where = ["layer", label], "layer, in the model's order"
        names = [layer.name for layer in record.layers]
        values = [value(layer) for layer in record.layers]
        _add_line(figure, "layers", list(range(len(names))), values, names)
        rows = [[n, text(v)] for n, v in zip(names, values, strict=True)]
    else:
        columns, where = ["block", *(kind.name for kind in kinds)], "block"
        cells: dict[int, list[str]] = {block: [""] * len(kinds) for block in blocks}
        for position, kind in enumerate(kinds):
            means = _mean_by_block(kind, value)
            _add_line(figure, kind.name, list(means), list(means.values()))
            for block, mean in means.items():
                cells[block][position] = text(mean)
        rows = [[str(block), *cells[block]] for block in blocks]
    figure.update_xaxes(title=where, rangemode="tozero", dtick=max(1, len(rows) // 6))
    _scale(figure, name, label, [value(layer) for layer in record.layers])
    caption = f"{label.capitalize()} of the layers along the depth of the model, by {where}."
    title = f"{name.capitalize()} by depth"
    return Chart(f"{name}-by-depth", title, caption, figure, columns, rows)


def _by_kind(
    kinds: list[Kind], name: str, label: str, value: _Measure, text: Callable[[float], str]
) -> Chart:
    values = [value(kind) for kind in kinds]
    figure = go.Figure(
        go.Bar(
            y=[html.escape(kind.name) for kind in kinds],
            x=values,
            orientation="h",
            text=[text(v) for v in values],
            textposition="auto",
            cliponaxis=False,
        )
    )
    figure.update_yaxes(autorange="reversed", type="category")
    if name == "density":
        figure.update_xaxes(title=label, tickformat=".0%", range=[0, 1])
    else:
        figure.update_xaxes(title=label, rangemode="tozero", nticks=6)
    caption = f"{label.capitalize()} by kind of projection, over all its layers."
    rows = [
        [k.name, str(len(k.layers)), f"{k.size:,}", text(v)]
        for k, v in zip(kinds, values, strict=True)
    ]
    columns = ["kind", "layers", "weights", label]
    title = f"{name.capitalize()} by kind of projection"
    return Chart(f"{name}-by-kind", title, caption, figure, columns, rows)


def _histogram(name: str, kind: Kind, counts: dict[str, list[float]]) -> Chart:
    figure = go.Figure()
    # A line over bars shows both where an update has made some value more frequent than before.
    figure.add_bar(name="before", x=counts["centers"], y=counts["dense"], opacity=0.6)
    figure.add_scatter(
        name="after", x=counts["centers"], y=counts["pruned"], mode="lines", line={"shape": "hvh"}
    )
    figure.update_layout(bargap=0)
    figure.update_xaxes(title="weight / its layer's deviation")
    figure.update_yaxes(title="weights")
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
    return Chart(name, kind.name, caption, figure, ["value", "before", "after"], rows)


def _mean_by_block(kind: Kind, value: _Measure) -> dict[int, float]:
    held = defaultdict(list)
    for layer in kind.layers:
        held[layer.block].append(value(layer))
    return {block: sum(values) / len(values) for block, values in sorted(held.items())}


def _scale(figure: go.Figure, name: str, label: str, values: list[float]) -> None:
    if name == "density":
        figure.update_yaxes(title=label, tickformat=".0%", range=[0, 1.03])
    else:
        positive = min(values) > 0
        figure.update_yaxes(title=label, exponentformat="power", type="log" if positive else None)
        if positive and max(values) > 100 * min(values):
            figure.update_yaxes(dtick=1)


def _add_line(
    figure: go.Figure, name: str, x: list[Any], y: list[float], hover: list[str] | None = None
) -> None:
    figure.add_scatter(
        name=html.escape(name),
        x=x,
        y=y,
        mode="lines+markers",
        marker={"size": 5},
        cliponaxis=False,
        text=[html.escape(text) for text in hover] if hover else None,
    )


def _add_star(figure: go.Figure, x: float, y: float) -> None:
    figure.add_scatter(
        name="this model", x=[x], y=[y], mode="markers", marker={"size": 14, "symbol": "star"}
    )
