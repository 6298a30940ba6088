"""Figures that several experiments draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plotly.graph_objects import Figure, Scatter


def lines(
    x: Sequence[object],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_title: str,
    y_title: str,
    errors: Mapping[str, Sequence[float]] | None = None,
    log_y: bool = False,
) -> Figure:
    """Draw one line per series, with error bars where `errors` has them."""
    figure = Figure()
    for name, values in series.items():
        bars = (errors or {}).get(name)
        figure.add_trace(
            Scatter(
                x=list(x),
                y=list(values),
                name=name,
                mode="lines+markers",
                error_y={"type": "data", "array": list(bars)} if bars is not None else None,
            )
        )
    figure.update_layout(
        title=title, xaxis_title=x_title, yaxis_title=y_title, template="plotly_white"
    )
    if log_y:
        figure.update_yaxes(type="log")
    return figure
