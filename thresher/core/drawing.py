"""Figures as SVG, drawn by matplotlib in the colours of the page that they stand in.

Colours are CSS variables (``--ink``, ``--line``, ``--series-0`` and so on), so that a page can be
light or dark; text is text, in the page's own font.
"""

from __future__ import annotations

__all__ = ["PALETTE", "draw", "page_with", "palette"]

import html
import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from .extras import naming_the_extra
from .figure import Axis, Cells, Figure, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Distinguishable with the common colour deficiencies, and at least 3:1 against the page.
PALETTE = {
    "light": (
        *("#0063a8", "#c2410c", "#007a5a", "#a5357f"),
        *("#8a6100", "#5b4bb7", "#4d5866", "#b3261e"),
    ),
    "dark": (
        *("#62b6f7", "#ff9a5c", "#3ecf9f", "#f08cc8"),
        *("#e3b341", "#b0a3ff", "#a9b4c2", "#ff8a80"),
    ),
}
# Stand for variables while matplotlib draws.
_INK, _LINE = "#010101", "#010102"
_SERIES = tuple(f"#0102{number:02x}" for number in range(len(PALETTE["light"])))
_VARIABLES = {_INK: "var(--ink)", _LINE: "var(--line)"} | {
    stand_in: f"var(--series-{number})" for number, stand_in in enumerate(_SERIES)
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_FAINTEST = 0.08
#: Of a line with more points they would hide the line.
_MOST_MARKS = 60
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --page: #fff; --ink: #1b1f24; --line: #d8dde3; {light} }}
@media (prefers-color-scheme: dark) {{
  :root {{ --page: #14171b; --ink: #e8ebef; --line: #3b424b; {dark} }}
}}
body {{ background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }}
body {{ margin: 1rem; }}
svg text {{ font-family: inherit; }}
</style>
</head>
<body><main><h1>{title}</h1><p>{claim}</p>{svg}</main></body>
</html>
"""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "axes.titlesize": 12,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "path.simplify": False,
    # Names are names, whatever signs are in them.
    "text.parse_math": False,
}


def palette(scheme: str) -> str:
    """Return the CSS that gives series their colours in a ``"light"`` or ``"dark"`` page."""
    colours = enumerate(PALETTE[scheme])
    return " ".join(f"--series-{number}: {colour};" for number, colour in colours)


def draw(
    figure: Figure | Cells, name: str, label: str, width: float = 460, height: float = 300
) -> str:
    """Return a figure as an SVG element for a page.

    Parameters
    ----------
    figure : Figure or Cells
        What to draw.
    name : str
        Unique in the page.
    label : str
        What the picture shows, for those who do not see it.
    width, height : float
        In CSS pixels; the element takes the width that it is given, at the same proportions.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    """
    with naming_the_extra():
        from matplotlib import style
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Canvas

    # Whatever the user's own settings are.
    with style.context(["default", {**_STYLE, "svg.hashsalt": name}]):
        canvas = Canvas(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        FigureCanvasSVG(canvas)
        hints = _cells(canvas, figure) if isinstance(figure, Cells) else _series(canvas, figure)
        written = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _for_page(written.getvalue(), name, label, hints)


def page_with(figure: Figure, name: str, claim: str) -> str:
    """Return a page that shows a figure and nothing else, light or dark as its reader prefers.

    Parameters
    ----------
    figure : Figure
        What to draw.
    name : str
        Unique among figures.
    claim : str
        What the figure is about.
    """
    return _PAGE.format(
        title=html.escape(name),
        light=palette("light"),
        dark=palette("dark"),
        claim=html.escape(claim),
        svg=draw(figure, name, f"Figure: {claim}", 720, 440),
    )


def _series(canvas: Canvas, figure: Figure) -> dict[str, list[str]]:
    """Draw series, and return what is said of the points of each, by the name of its group."""
    axes, hints = canvas.subplots(), {}
    for number, series in enumerate(figure.series):
        colour = _SERIES[number % len(_SERIES)]
        group = f"series-{number}"
        hints[group] = _DRAWN[series.mode](axes, series, colour, number, group)
    for line in figure.lines:
        axes.axhline(line.y, color=_INK, linewidth=1, linestyle=(0, (2, 3)))
        axes.annotate(
            line.name, (1, line.y), (-2, 2), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="bottom", fontsize=10,
        )  # fmt: skip
    if figure.title:
        axes.set_title(figure.title, loc="left")
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)
    named = any(isinstance(x, str) for series in figure.series for x in series.x)
    _scale(axes, figure.x, "x", named)
    _scale(axes, figure.y, "y", named=False)
    if len(figure.series) > 1:
        canvas.legend(loc="outside upper left", ncols=3, fontsize=10, handlelength=1.4)
    return hints


def _plotted(axes: Axes, series: Series, colour: str, number: int, group: str) -> list[str]:
    """Draw a line, points or both; return what is said of the points."""
    kept = [i for i, value in enumerate(series.y) if _finite(value)]
    x, y = [series.x[i] for i in kept], [series.y[i] for i in kept]
    marked = series.mode == "points" or (series.mode != "line" and len(x) <= _MOST_MARKS)
    marker = "*" if series.star else _MARKERS[number % len(_MARKERS)]
    style: dict[str, Any] = {"color": colour, "label": series.name, "gid": group, "clip_on": False}
    if marked:
        style |= {"marker": marker, "markersize": 15 if series.star else 6, "zorder": 3}
    if series.mode == "points":
        style["linestyle"] = "none"
    elif series.dotted:
        style["linestyle"] = (0, (2, 3))
    axes.plot(x, y, **style)
    if series.errors is not None:
        bars = [series.errors[i] for i in kept]
        drawn = axes.errorbar(x, y, yerr=bars, fmt="none", ecolor=colour, capsize=3)
        for cap in drawn.lines[1]:
            cap.set_markerfacecolor(colour)
    if not marked:
        return []
    if series.labels is not None:
        return [series.labels[i] for i in kept]
    return [f"{series.name}: {_told(a)}, {_told(b)}" for a, b in zip(x, y, strict=True)]


def _binned(axes: Axes, series: Series, colour: str, number: int, group: str) -> list[str]:
    step = series.x[1] - series.x[0] if len(series.x) > 1 else 1.0
    edges = [series.x[0] - step / 2, *(x + step / 2 for x in series.x)]
    area = series.mode == "area"
    style: dict[str, Any] = {"fill": area, "label": series.name, "color": colour}
    axes.stairs(list(series.y), edges, alpha=0.5 if area else 1, linewidth=1.4, **style)
    return []


_DRAWN = {
    **dict.fromkeys(("line", "points", "line and points"), _plotted),
    **dict.fromkeys(("area", "steps"), _binned),
}


def _scale(axes: Axes, axis: Axis, which: str, named: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    side = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}label": axis.title})
    side.set_tick_params(length=0)
    if axis.log:
        axes.set(**{f"{which}scale": "log"})
    if named:  # each has its place already
        return
    if axis.log:
        low, high = sorted(side.get_view_interval())
        side.set_major_locator(_log_locator(low, high))
        side.set_minor_locator(NullLocator())
    else:
        side.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    side.set_major_formatter(FuncFormatter(lambda value, place: f"{value:.5g}{axis.unit}"))


def _log_locator(low: float, high: float) -> Any:
    """Return what places some five labels on a logarithmic axis, at round numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    decades = math.log10(high / low)
    if decades < 1:
        return MaxNLocator(6, steps=[1, 2, 5, 10])
    return LogLocator(subs=(1, 2, 5)) if decades < 2.5 else LogLocator(numticks=7)


def _cells(canvas: Canvas, cells: Cells) -> dict[str, list[str]]:
    """Draw cells, the stronger the larger the value, and return what is said of each."""
    from matplotlib.patches import Rectangle

    axes, hints = canvas.subplots(), {}
    shades = _shades(cells)
    for row, values in enumerate(shades):
        for column, shade in enumerate(values):
            if shade is None:
                continue
            group = f"cell-{row}-{column}"
            colour = (*_rgb(_SERIES[0]), shade)
            patch = Rectangle((column, row), 0.94, 0.9, facecolor=colour, linewidth=0, gid=group)
            axes.add_patch(patch)
            hints[group] = [cells.labels[row][column]]
    axes.set(xlim=(0, len(cells.columns)), ylim=(len(cells.rows), 0), xlabel=cells.x)
    every = max(1, math.ceil(len(cells.columns) / 12))
    places = range(0, len(cells.columns), every)
    axes.set_xticks([place + 0.5 for place in places], [cells.columns[i] for i in places])
    axes.set_yticks([i + 0.5 for i in range(len(cells.rows))], cells.rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return hints


def _shades(cells: Cells) -> list[list[float | None]]:
    """Return how strong each cell is, from faint to full; None where it has no value.

    The lowest twentieth is as faint as the last of it, so that a few outliers take no colours
    from the others.
    """

    def place(value: float) -> float:
        # What is zero lies below all on a logarithmic scale.
        return math.log(value) if cells.log and value > 0 else -math.inf if cells.log else value

    held = sorted(place(v) for row in cells.values for v in row if _finite(v))
    ends = [value for value in held if math.isfinite(value)] or [0.0]
    low, high = ends[len(ends) // 20], ends[-1]
    span = (high - low) or 1.0
    return [
        [
            # Sums may end a rounding error above 1, which is no opacity.
            min(1.0, _FAINTEST + (1 - _FAINTEST) * max(0.0, place(value) - low) / span)
            if _finite(value)
            else None
            for value in row
        ]
        for row in cells.values
    ]


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _told(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _for_page(svg: str, name: str, label: str, hints: dict[str, list[str]]) -> str:
    """Return the element with hints, names of its own and the page's colours and font."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(svg[svg.index("<svg") :])
    for parent in root.findall(f".//{{{_SVG}}}style/.."):
        # It would hold for the whole page.
        for style in parent.findall(f"{{{_SVG}}}style"):
            parent.remove(style)
    for group in root.iter(f"{{{_SVG}}}g"):
        _add_hints(group, hints.get(group.get("id", ""), []))
    used = set(re.findall(r"""(?:url\(|href=")#([^")]+)""", svg))
    for element in root.iter():
        _settle(element, name, used)
        if not (element.text or "").strip():
            element.text = None
        element.tail = None
    _, _, width, _ = root.get("viewBox", "0 0 0 0").split()
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("style", f"max-width: {1.5 * float(width):g}px")
    return ElementTree.tostring(root, encoding="unicode")


def _settle(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Give an element the page's colours and font, short numbers, and a name if it is used."""
    if element.get("id") not in used:
        element.attrib.pop("id", None)
    elif "id" in element.attrib:
        element.set("id", f"{name}-{element.get('id')}")
    for key, value in element.attrib.items():
        if key == "style":
            value = re.sub("|".join(_VARIABLES), lambda found: _VARIABLES[found[0]], value)
            # The font is the page's, of which only the size is said here.
            value = re.sub(r"font: ?(?:[\w ]+ )?([\d.]+px)[^;]*", r"font-size: \1", value)
            value = re.sub(r"font-family: ?[^;]*;? ?", "", value)
        if key in ("style", "clip-path", f"{{{_XLINK}}}href"):
            value = re.sub(r"^#|(?<=url\()#", f"#{name}-", value)
        if key in ("d", "x", "y", "transform", "style"):
            value = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", value)
        element.set(key, value)


def _add_hints(group: ElementTree.Element, hints: Sequence[str]) -> None:
    """Say what each point of a group is where a pointer rests on it."""
    if not hints:
        return
    points = list(group.iter(f"{{{_SVG}}}use")) or list(group.findall(f"{{{_SVG}}}path"))
    for point, hint in zip(points, hints, strict=False):
        ElementTree.SubElement(point, f"{{{_SVG}}}title").text = hint
