"""Plots of the benchmark: time by problem, and error against time along the tolerances."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go


def save_plots(results: list[dict], folder: Path) -> None:
    """Write ``linear-time.html`` and ``linear-error.html``."""
    done = [row for row in results if "failed" not in row]
    libraries = sorted(
        {row["library"] for row in done}, key=lambda name: (name != "thresher", name)
    )
    bars, curves = go.Figure(), go.Figure()
    for library in libraries:
        own = [row for row in done if row["library"] == library]
        seconds = [row["runs"][row["chosen"]]["warm"] for row in own]
        bars.add_bar(name=library, x=[row["problem"] for row in own], y=seconds)
    bars.update_yaxes(type="log", title="seconds, warm")
    bars.update_layout(title="Time to the target error", template="plotly_white")
    for row in done:
        curves.add_scatter(
            name=f"{row['problem']}: {row['library']}",
            x=[run["warm"] for run in row["runs"]],
            y=[max(run["error"], 1e-16) for run in row["runs"]],
            mode="lines+markers",
        )
    curves.update_xaxes(type="log", title="seconds, warm")
    curves.update_yaxes(type="log", title="error (gap or violation)")
    curves.update_layout(title="Error against time", template="plotly_white")
    for name, figure in (("time", bars), ("error", curves)):
        figure.write_html(folder / f"linear-{name}.html", include_plotlyjs="cdn")
