"""Figures as data: what is drawn against what, without colours and without a drawing library."""

from __future__ import annotations

__all__ = ["Axis", "Cells", "Figure", "Line", "Series"]

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: How a series is drawn, and what plotly calls it; it has bins in other kinds of traces.
_MODES = {
    "line": "lines",
    "points": "markers",
    "line and points": "lines+markers",
    "area": "area",
    "steps": "steps",
}


@dataclass(frozen=True)
class Series:
    """Values that belong together.

    Parameters
    ----------
    name : str
        Shown in the legend.
    x : sequence of float or str
        Where; of ``"area"`` and ``"steps"`` the middles of bins of one width.
    y : sequence of float
        What; values that are not finite are left out.
    mode : {"line", "points", "line and points", "area", "steps"}, default "line and points"
        How it is drawn.
    errors : sequence of float, optional
        Half the height of error bars.
    labels : sequence of str, optional
        What is said of each point where a pointer rests on it; by default its values.
    star : bool, default False
        Whether points are stars.
    dotted : bool, default False
        Whether the line is.
    """

    name: str
    x: Sequence[Any]
    y: Sequence[float]
    mode: str = "line and points"
    errors: Sequence[float] | None = None
    labels: Sequence[str] | None = None
    star: bool = False
    dotted: bool = False


@dataclass(frozen=True)
class Line:
    """A line across a figure at one value of y, and what it is called."""

    y: float
    name: str


@dataclass(frozen=True)
class Axis:
    """An axis.

    Parameters
    ----------
    title : str
        What is drawn along it.
    log : bool, default False
        Whether it is logarithmic.
    unit : str, default ""
        Written after numbers, such as ``"x"`` and ``" %"``.
    """

    title: str = ""
    log: bool = False
    unit: str = ""


@dataclass
class Figure:
    """Series over two axes.

    Parameters
    ----------
    series : list of Series
        In the order of the legend.
    x, y : Axis
        The axes.
    title : str, default ""
        Written above.
    lines : list of Line
        Across the figure.
    """

    series: list[Series] = field(default_factory=list)
    x: Axis = Axis()
    y: Axis = Axis()
    title: str = ""
    lines: list[Line] = field(default_factory=list)

    def to_json(self) -> str:
        """Return the figure as plotly writes one, which this and other programs read."""
        data = [
            {
                "type": "scatter",
                "name": each.name,
                "mode": _MODES[each.mode],
                "x": [_plain(value) for value in each.x],
                "y": [_plain(value) for value in each.y],
                **({} if each.errors is None else {"error_y": _bars(each.errors)}),
            }
            for each in self.series
        ]
        axes = {"xaxis": _axis(self.x), "yaxis": _axis(self.y)}
        return json.dumps({"data": data, "layout": {"title": {"text": self.title}, **axes}})

    @classmethod
    def from_json(cls, text: str) -> Figure:
        """Return the figure that :meth:`to_json`, or plotly, wrote: lines and points alone."""
        found = json.loads(text)
        layout, modes = found["layout"], {plotly: mode for mode, plotly in _MODES.items()}
        series = [
            Series(
                each.get("name", ""),
                _values(each["x"]),
                _values(each["y"]),
                modes[each.get("mode", "lines+markers")],
                _values(each["error_y"]["array"]) if "error_y" in each else None,
            )
            for each in found["data"]
        ]
        x, y = (
            Axis(_title(layout.get(name, {})), layout.get(name, {}).get("type") == "log")
            for name in ("xaxis", "yaxis")
        )
        return cls(series, x, y, _title(layout))


@dataclass(frozen=True)
class Cells:
    """A table of values that is drawn as coloured cells.

    Parameters
    ----------
    columns, rows : sequence of str
        Names of both sides, from the left and from the top.
    values : sequence of sequence of float
        By row; NaN where there is none.
    x, y : str
        What columns and rows are.
    labels : sequence of sequence of str
        What is said of each cell where a pointer rests on it.
    log : bool, default False
        Whether colours go by the logarithm.
    """

    columns: Sequence[str]
    rows: Sequence[str]
    values: Sequence[Sequence[float]]
    x: str
    y: str
    labels: Sequence[Sequence[str]]
    log: bool = False


def _axis(axis: Axis) -> dict[str, Any]:
    return {"title": {"text": axis.title}, **({"type": "log"} if axis.log else {})}


def _bars(errors: Sequence[float]) -> dict[str, Any]:
    return {"type": "data", "array": [_plain(value) for value in errors]}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: no number that is not finite."""
    if value is None or isinstance(value, str):
        return value
    number = value.item() if hasattr(value, "item") else value
    return number if math.isfinite(number) else None


def _title(layout: dict[str, Any]) -> str:
    """Return a title, which plotly writes by itself or with its settings."""
    found = layout.get("title", "")
    return str(found.get("text", "") if isinstance(found, dict) else found)


def _values(found: Any) -> list[Any]:
    """Return values of a list, or of an array as plotly packs it; NaN for what was not finite."""
    if isinstance(found, dict):
        found = np.frombuffer(base64.b64decode(found["bdata"]), found["dtype"]).tolist()
    return [math.nan if value is None else value for value in found]
