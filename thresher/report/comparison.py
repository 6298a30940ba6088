"""A comparison of methods as a table, on the terminal and in a report with charts."""

from __future__ import annotations

__all__ = ["comparison_tables", "render_comparison", "show_comparison", "write_comparison"]

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.filesize import decimal as bytes_text
from rich.table import Table
from rich.text import Text

from ..core.columns import parts_of
from ..core.files import write_text
from ..core.numbers import duration, number, percent, times
from ..core.terminal import show
from .html import render_page
from .pareto import PRICES, chart_of_bargains

if TYPE_CHECKING:
    from ..prune.comparison import ComparedModel, Comparison

_NONE = "-"
_DENSE = "dense"
_NAMES, _REMARK = ("model", "pattern"), "remark"


@dataclass(frozen=True)
class _Column:
    """A column: its head, the figure that it shows, and how."""

    head: str
    figure: str
    text: Callable[[ComparedModel], str]

    def cell(self, row: ComparedModel) -> str:
        return _NONE if getattr(row, self.figure) is None else self.text(row)


def _speedup(row: Any) -> str:
    told = times(row.speedup, 1)
    if row.speedup_least is not None and row.speedup_most is not None:
        told += f" ({number(row.speedup_least)} to {number(row.speedup_most)})"
    return told + (", noisy" if row.noisy else "")


def _shown(figure: str, text: Callable[..., str]) -> Callable[[ComparedModel], str]:
    return lambda row: text(getattr(row, figure))


_QUALITY = [
    _Column("kept", "density", _shown("density", percent)),
    _Column("perplexity", "perplexity", _shown("perplexity", number)),
    _Column("other text", "other_perplexity", _shown("other_perplexity", number)),
    _Column("KL, nats", "kl", _shown("kl", number)),
    _Column("top-1", "top1_agreement", _shown("top1_agreement", percent)),
]
_COSTS = [
    _Column("time", "seconds", _shown("seconds", duration)),
    _Column("peak memory", "peak_bytes", _shown("peak_bytes", bytes_text)),
    _Column("on disk", "stored_bytes", _shown("stored_bytes", bytes_text)),
    _Column("packed", "packed_bytes", _shown("packed_bytes", bytes_text)),
    _Column("tokens/s", "tokens_per_second", _shown("tokens_per_second", number)),
    _Column("times dense", "speedup", _speedup),
]


def comparison_tables(comparison: Comparison, width: int) -> list[Table]:
    """Return the tables of a comparison for a terminal: quality, and costs.

    Parameters
    ----------
    comparison : Comparison
        Columns that no row has a figure for are left out.
    width : int
        Characters that a line has room for.

    Returns
    -------
    list of rich.table.Table
        With a row a model, the dense one first. One that is too wide is parted, and all of its
        parts name the models.
    """
    tables: list[Table] = []
    for columns in _columns(comparison):
        widths = [max(map(cell_len, column)) for column in columns]
        tables += [
            _table([columns[i] for i in part]) for part in parts_of(widths, width, len(_NAMES))
        ]
    tables[0].title = Text(_headline(comparison))
    return tables


def _table(columns: Sequence[Sequence[str]]) -> Table:
    table = Table(title_justify="left")
    for head, *_ in columns:
        text = head in (*_NAMES, _REMARK)
        table.add_column(head, justify="left" if text else "right", overflow="fold")
    for row in list(zip(*columns, strict=True))[1:]:
        table.add_row(*map(Text, row))
    return table


def show_comparison(comparison: Comparison, out: Path) -> None:
    """Print the table in the terminal's width, what it says, and what is to be known about it.

    Parameters
    ----------
    comparison : Comparison
        With at least the dense model.
    out : Path
        What was written of it, for those who read JSON.
    """
    texts = [*_sentences(comparison), *_notes(comparison)]
    tables = comparison_tables(comparison, Console(emoji=False).width)
    data = {"out": out, **asdict(comparison), "said": texts}
    show(data, *tables, *map(Text, texts))


def render_comparison(comparison: Comparison) -> str:
    """Return the report on a comparison as one HTML page that needs nothing else.

    Parameters
    ----------
    comparison : Comparison
        With at least the dense model.
    """
    tables = [list(zip(*columns, strict=True)) for columns in _columns(comparison)]
    return render_page(
        "comparison.html",
        headline=_headline(comparison),
        sentences=_sentences(comparison),
        tables=tables,
        notes=_notes(comparison),
        charts=_charts(comparison),
        facts=_facts(comparison),
    )


def write_comparison(comparison: Comparison, path: str | Path) -> None:
    """Write the report on a comparison, whole or not at all.

    Parameters
    ----------
    comparison : Comparison
        With at least the dense model.
    path : str or Path
        The HTML file; one that is there is replaced.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    write_text(Path(path), render_comparison(comparison))


def _columns(comparison: Comparison) -> tuple[list[list[str]], list[list[str]]]:
    """Return heads and cells of two tables: how good each model is, and what it costs."""
    rows = comparison.rows
    labels, patterns = map(_label, rows), (row.pattern or _NONE for row in rows)
    names = [[_NAMES[0], *labels], [_NAMES[1], *patterns]]
    tasks = dict.fromkeys(task for row in rows for task in row.tasks)
    accuracies = [[task, *(_accuracy(row.tasks.get(task)) for row in rows)] for task in tasks]
    return (
        [*names, *_known(_QUALITY, rows), *accuracies],
        [*names, *_known(_COSTS, rows), [_REMARK, *map(_remark, rows)]],
    )


def _known(columns: Sequence[_Column], rows: Sequence[ComparedModel]) -> list[list[str]]:
    """Return the columns that have a figure."""
    cells = [[column.head, *map(column.cell, rows)] for column in columns]
    return [each for each in cells if set(each[1:]) != {_NONE}]


def _accuracy(found: dict[str, float] | None) -> str:
    """Return a task's accuracy; of tasks that have none, the first thing that they measure."""
    if not found:
        return _NONE
    if "accuracy" in found:
        return percent(found["accuracy"])
    measure, value = next(iter(found.items()))
    return f"{measure} {number(value)}"


def _label(row: ComparedModel) -> str:
    return row.method if row.method == _DENSE else f"{row.method} {percent(row.density_asked)}"


def _remark(row: ComparedModel) -> str:
    """Return in what form the model was timed; why it has no figures is among the notes."""
    if row.error:
        return "failed"
    if row.layouts == _DENSE:
        return f"runs dense, in {row.dtype}" if row.dtype else "runs dense"
    return f"layers: {row.layouts}" if row.layouts else ""


def _headline(comparison: Comparison) -> str:
    name = PurePath(comparison.model).name or comparison.model
    methods = list(dict.fromkeys(row.method for row in comparison.rows if row.method != _DENSE))
    return f"{name}: {', '.join(methods)} compared"


def _sentences(comparison: Comparison) -> list[str]:
    """Return which method comes out best at every density and pattern."""
    groups: dict[tuple[float, str], list[ComparedModel]] = defaultdict(list)
    for row in comparison.rows:
        if row.perplexity is not None and row.method != _DENSE:
            groups[row.density_asked, row.pattern if ":" in row.pattern else ""].append(row)
    dense = next((row.perplexity for row in comparison.rows if row.method == _DENSE), None)
    found = [] if dense is None else [f"The dense model's perplexity is {number(dense)}."]
    for (density, pattern), rows in sorted(groups.items(), reverse=True):
        best = min(rows, key=lambda row: row.perplexity or 0.0)
        where = f"{percent(density)} kept{f' in {pattern}' if pattern else ''}"
        value = number(best.perplexity or 0.0)
        lowest = f"the lowest of {len(rows)}" if len(rows) > 1 else "it"
        found.append(f"With {where}, {lowest} is {value}, by {best.method}.")
    failed = sum(bool(row.error) for row in comparison.rows)
    if failed:
        found.append(f"{failed} of {len(comparison.rows) - 1} models could not be made.")
    return found


def _notes(comparison: Comparison) -> list[str]:
    """Return what is to be known about the figures, and why some are not there."""
    notes = []
    if (held_out := comparison.text.get("held_out")) is not None:
        notes.append(
            "Perplexity, KL divergence from the dense model and agreement on the likeliest next "
            f"token are of {held_out} held-out windows of "
            f"{comparison.text.get('evaluated', 'the calibration text')}."
        )
    if comparison.parallel > 1:
        notes.append(f"Times are of {comparison.parallel} models being made at a time.")
    if any(row.speedup is not None for row in comparison.rows):
        notes.append(
            "Tokens/s are of one sequence, beside the dense model in one run, in brackets the "
            "range of single repeats; the dense model is held against itself. What runs dense has "
            "no layer that is faster in another layout, and the dense model's speed."
        )
    heads = {column.figure: column.head for column in (*_QUALITY, *_COSTS)}
    for figure, why in comparison.missing.items():
        notes.append(f"No {heads.get(figure, figure)}: {why}.")
    notes += [f"{row.name} failed: {row.error}" for row in comparison.rows if row.error]
    without: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in comparison.rows:
        for lack in row.missing.items():
            without[lack].append(row.name)
    for (figure, why), names in without.items():
        notes.append(f"No {heads.get(figure, figure)} of {', '.join(names)}: {why}.")
    return notes


def _charts(comparison: Comparison) -> list[object]:
    """Return perplexity against bytes, density and speed, as far as they are known."""
    found = (chart_of_bargains(price, comparison.rows) for price in PRICES)
    return [chart for chart in found if chart is not None]


def _facts(comparison: Comparison) -> dict[str, str]:
    text = comparison.text
    windows = f"{text.get('windows')} windows of {text.get('length')} tokens"
    return {
        "model": comparison.model,
        "calibration": f"{text.get('source')}, {windows}",
        "other text": text.get("other") or "none",
        "healing": "none" if comparison.heal is None else f"{comparison.heal:g} minutes a model",
        "models at a time": str(comparison.parallel),
        "processor": comparison.machine or "not recorded",
        "versions": ", ".join(f"{name} {held}" for name, held in comparison.versions.items()),
    }
