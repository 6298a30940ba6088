"""The HTML report: one file that needs nothing else, online or off."""

from __future__ import annotations

__all__ = ["render", "render_page", "write_report"]

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from ..core.drawing import PALETTE, palette
from ..core.numbers import duration, number, percent
from .advice import Step, again, next_steps
from .answers import answers, size_rows, speed_rows
from .charts import histograms
from .coverage import coverage_rows
from .damage import charts_of_layers, exclusions, flat_sentences, kind_rows, massive
from .decision import charts_of_decision
from .facts import facts, missing
from .quality import quality_rows, task_rows
from .structure import structure_rows
from .verdict import NO_CURVE, judge

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

_LARGEST_LOSSES = 10


def render(record: PruneRecord, folder: str | Path = "FOLDER") -> str:
    """Return the report on a pruning run as one HTML page.

    Parameters
    ----------
    record : PruneRecord
        The run. Whatever it lacks is replaced by a sentence on how to get it.
    folder : str or Path, default "FOLDER"
        Where the model lies, for the commands that the page proposes.

    Returns
    -------
    str
        A page of some 0.2 MB that runs no script and makes no request. It follows the reader's
        preference for light or dark, and holds the numbers of every chart as a table.
    """
    return render_page("template.html", **_content(record, folder))


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
        "duration": duration,
        "number": number,
        "percent": percent,
    }
    palettes = {scheme: palette(scheme) for scheme in PALETTE}
    return environment.get_template(template).render(palettes=palettes, **content)


def write_report(record: PruneRecord, path: str | Path, folder: str | Path = "FOLDER") -> None:
    """Write the report on a pruning run, whole or not at all.

    Parameters
    ----------
    record : PruneRecord
        The run.
    path : str or Path
        The HTML file; one that is there is replaced.
    folder : str or Path, default "FOLDER"
        See :func:`render`.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    from ..core.files import write_text

    write_text(Path(path), render(record, folder))


def _content(record: PruneRecord, folder: str | Path) -> dict[str, Any]:
    """Return what the template shows."""
    losses = sorted(record.layers, key=lambda layer: -layer.error)[:_LARGEST_LOSSES]
    return {
        "record": record,
        "verdict": judge(record),
        "answers": answers(record),
        "quality": quality_rows(record),
        "tasks": task_rows(record),
        "samples": record.evaluation.get("samples") or [],
        "sizes": size_rows(record),
        "speed": speed_rows(record),
        "layouts": _layouts(record),
        "steps": next_steps(record, folder),
        "missing": missing(record, folder),
        "decision": charts_of_decision(record),
        "by_layer": charts_of_layers(record),
        "flat": flat_sentences(record),
        "massive": massive(record),
        "kinds": kind_rows(record),
        "excluding": _excluding(record, folder),
        "histograms": histograms(record),
        "losses": losses,
        "phases": _phases(record),
        "no_curve": NO_CURVE,
        "facts": facts(record) | structure_rows(record) | coverage_rows(record),
    }


def _excluding(record: PruneRecord, folder: str | Path) -> Step | None:
    """Return how to leave dense what changed most."""
    options, share = exclusions(record)
    if not options:
        return None
    command = again(record, f"{folder}-again", options) or " ".join(map(shlex.quote, options))
    first = f"the first {len(options) // 2}" if len(options) > 2 else "the first"
    return Step(command, f"leaves {first} dense, {percent(share)} of the pruned weights")


def _layouts(record: PruneRecord) -> str:
    """Return in what the layers were packed that were timed."""
    held = record.speed.get("layouts", {})
    return ", ".join(f"{count} {name}" for name, count in held.items())


def _phases(record: PruneRecord) -> dict[str, float]:
    """Return the seconds of every phase, with what the total leaves over as the last."""
    phases = {
        name: spent for name, spent in record.timings.items() if name not in ("total", "measuring")
    }
    rest = max(0.0, record.seconds - sum(phases.values()))
    return (
        {**phases, "loading, writing and the rest": rest} if "total" in record.timings else phases
    )


def _with_code(text: str) -> Markup:
    """Return escaped text with `commands` set as code, and no line ending before a % sign."""
    escaped = str(escape(text)).replace(" %", "\u00a0%")
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", escaped))
