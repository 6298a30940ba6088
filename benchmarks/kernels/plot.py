"""One picture: ratio against density, by batch, with the limit that bytes set."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from thresher.core.figure import Axis, Figure, Line, Series

from .cases import BATCHES, BF16


def ratios(rows: list[dict[str, Any]]) -> dict[int, Figure]:
    """Return the products in bfloat16 against dense bfloat16, a figure a batch size."""
    return {batch: _ratios(rows, batch) for batch in BATCHES}


def _ratios(rows: list[dict[str, Any]], batch: int) -> Figure:
    lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row.get("dtype") != "bfloat16" or row["batch"] != batch:
            continue
        shape = "x".join(map(str, row["shape"]))
        lines[f"{row['layout']}, {shape}"].append((row["density"], row["ratios"][BF16]))
        limit = (row["density"], 1 / row["bytes_of_dense_bf16"])
        lines[f"{row['layout']}, byte limit"].append(limit)
    series = [
        Series(
            name,
            [x for x, _ in sorted(points)],
            [y for _, y in sorted(points)],
            "line" if name.endswith("limit") else "line and points",
            dotted=name.endswith("limit"),
        )
        for name, points in sorted(lines.items())
    ]
    ratio = Axis("dense bf16 time / packed time", log=True, unit="x")
    title = f"Packed products against dense bfloat16, batch {batch}"
    return Figure(series, Axis("density"), ratio, title, [Line(1, "dense")])
