"""The HTML report: one file that needs nothing else, online or off."""

from __future__ import annotations

__all__ = ["render", "render_page", "write_report"]

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from . import charts, units
from .coverage import coverage_rows, healing_rows
from .structure import structure_rows
from .verdict import NO_CURVE, NOT_EVALUATED, judge

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

_LARGEST_LOSSES = 10


def render(record: PruneRecord) -> str:
    """Return the report on a pruning run as one HTML page.

    Parameters
    ----------
    record : PruneRecord
        The run. Whatever its ``evaluation`` lacks is replaced by a sentence on how to get it.

    Returns
    -------
    str
        A page of about 5 MB, most of it plotly.js. It makes no request, follows the reader's
        preference for light or dark, and holds the numbers of every chart as a table.
    """
    return render_page("template.html", **_content(record))


def render_page(template: str, **content: Any) -> str:
    """Return a page that holds everything it shows, made from one of this folder's templates.

    Parameters
    ----------
    template : str
        Name of a file that extends ``base.html``.
    **content : Any
        What it shows.
    """
    import jinja2
    from plotly.offline import get_plotlyjs
    from rich.filesize import decimal

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("thresher.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "bytes": decimal,
        "code": _with_code,
        "duration": units.duration,
        "number": units.number,
        "percent": units.percent,
    }
    return environment.get_template(template).render(
        plotly_js=get_plotlyjs(), templates=charts.templates(), **content
    )


def write_report(record: PruneRecord, path: str | Path) -> None:
    """Write the report on a pruning run, whole or not at all.

    Parameters
    ----------
    record : PruneRecord
        The run.
    path : str or Path
        The HTML file; one that is there is replaced.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    from ..core.files import write_text

    write_text(Path(path), render(record))


def _content(record: PruneRecord) -> dict[str, Any]:
    """Return what the template shows."""
    has_layers = bool(record.layers)
    losses = sorted(record.layers, key=lambda layer: -layer.error)[:_LARGEST_LOSSES]
    return {
        "record": record,
        "verdict": judge(record),
        "curve": charts.chart_of_curve(record),
        "by_depth": charts.charts_by_depth(record) if has_layers else [],
        "by_kind": charts.charts_by_kind(record) if has_layers else [],
        "histograms": charts.histograms(record),
        "losses": losses,
        "coverage": structure_rows(record) | coverage_rows(record),
        "healing": healing_rows(record),
        "phases": _phases(record),
        "no_curve": NO_CURVE if "pruned_perplexity" in record.evaluation else NOT_EVALUATED,
    }


def _phases(record: PruneRecord) -> dict[str, float]:
    """Return the seconds of every phase, with what the total leaves over as the last."""
    phases = {name: spent for name, spent in record.timings.items() if name != "total"}
    rest = max(0.0, record.seconds - sum(phases.values()))
    return (
        {**phases, "loading, writing and the rest": rest} if "total" in record.timings else phases
    )


def _with_code(text: str) -> Markup:
    """Return escaped text with `commands` set as code, and no line ending before a % sign."""
    escaped = str(escape(text)).replace(" %", "\u00a0%")
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", escaped))
