"""One picture: ratio against density, by batch, with the limit that bytes set."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from .cases import BATCHES, BF16


def ratios(rows: list[dict[str, Any]]) -> Figure:
    """Draw the products in bfloat16 against dense bfloat16, one column per batch size."""
    titles = [f"batch {batch}" for batch in BATCHES]
    figure = make_subplots(cols=len(BATCHES), shared_yaxes=True, subplot_titles=titles)
    palette = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2")
    layouts = sorted({row["layout"] for row in rows if row.get("dtype") == "bfloat16"})
    colours = dict(zip(layouts, palette, strict=False))
    for column, batch in enumerate(BATCHES, start=1):
        lines: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for row in rows:
            if row.get("dtype") != "bfloat16" or row["batch"] != batch:
                continue
            shape = "x".join(map(str, row["shape"]))
            lines[row["layout"], shape].append((row["density"], row["ratios"][BF16]))
            lines[row["layout"], "byte limit"].append(
                (row["density"], 1 / row["bytes_of_dense_bf16"])
            )
        for (layout, kind), points in sorted(lines.items()):
            limit = kind == "byte limit"
            figure.add_trace(
                Scatter(
                    x=[x for x, _ in sorted(points)],
                    y=[y for _, y in sorted(points)],
                    name=f"{layout}, {kind}",
                    legendgroup=f"{layout}, {kind}",
                    showlegend=column == 1,
                    mode="lines" if limit else "lines+markers",
                    line={"color": colours[layout], "dash": "dot" if limit else "solid"},
                ),
                row=1,
                col=column,
            )
        figure.add_hline(y=1, line_color="grey", row=1, col=column)
        figure.update_xaxes(title_text="density", row=1, col=column)
    figure.update_yaxes(title_text="dense bf16 time / packed time", type="log", col=1)
    figure.update_layout(title="Packed products against dense bfloat16", template="plotly_white")
    return figure
