"""Figures that several experiments draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from thresher.core.figure import Axis, Figure, Series


def lines(
    x: Sequence[object],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_title: str,
    y_title: str,
    errors: Mapping[str, Sequence[float]] | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> Figure:
    """Draw one line per series, with error bars where `errors` has them."""
    held = [
        Series(name, list(x), list(values), errors=(errors or {}).get(name))
        for name, values in series.items()
    ]
    return Figure(held, Axis(x_title, log_x), Axis(y_title, log_y), title)
