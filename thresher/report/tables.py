"""Tables that a terminal shows: what a pruned model is made of, and what it cost."""

from __future__ import annotations

__all__ = ["kind_table", "layer_table", "recipe_table", "record_data", "summary_table"]

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal as bytes_text
from rich.table import Table
from rich.text import Text

from ..core.numbers import duration, number, percent, times
from .coverage import coverage_rows, healing_rows
from .kinds import by_kind
from .structure import structure_rows

if TYPE_CHECKING:
    from ..prune.record import LayerRecord, PruneRecord

_UNKNOWN = "not measured"


def summary_table(record: PruneRecord) -> Table:
    """Return what a pruning run did and cost, one figure a row.

    Parameters
    ----------
    record : PruneRecord
        Figures that its evaluation lacks are shown as not measured.

    Returns
    -------
    rich.table.Table
        Densities, perplexities, bytes on disk, peak memory and time.
    """
    rows = {
        "density asked": percent(record.density_asked),
        "density reached": percent(record.density),
        **coverage_rows(record),
        **_perplexities(record),
        **_bytes_on_disk(record),
        "peak memory": bytes_text(record.peak_bytes) if record.peak_bytes else _UNKNOWN,
        "time": duration(record.seconds) + _to_measure(record),
    }
    return _two_columns(f"{record.model}, pruned by {record.method}", rows)


def record_data(
    record: PruneRecord, stored_bytes: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return what these tables show, as data: the record without histograms.

    Parameters
    ----------
    record : PruneRecord
        The run.
    stored_bytes : mapping of str to int, optional
        What each layer's weight takes on disk, by layer name.
    """
    data = dataclasses.asdict(record) | {"density": record.density, "seconds": record.seconds}
    for layer in data["layers"]:
        del layer["histogram"]
        layer["density"] = layer["kept"] / max(1, math.prod(layer["shape"]))
        if stored_bytes is not None:
            layer["stored_bytes"] = stored_bytes.get(layer["name"])
    return data


def recipe_table(record: PruneRecord) -> Table:
    """Return how a pruned model was made, and what was measured of it.

    Parameters
    ----------
    record : PruneRecord
        The run.

    Returns
    -------
    rich.table.Table
        A fact a row.
    """
    rows = {
        "model": record.model,
        "method": record.method,
        "recipe": record.recipe,
        "pattern": record.pattern,
        "density": f"{percent(record.density)} ({percent(record.density_asked)} asked)",
        **structure_rows(record),
        **coverage_rows(record),
        "calibration": _listed(record.calibration, ": "),
        **healing_rows(record),
        **_perplexities(record),
        **_bytes_on_disk(record),
        "versions": _listed(record.versions, " "),
    }
    return _two_columns("How it was made", rows)


def kind_table(record: PruneRecord, stored_bytes: Mapping[str, int] | None = None) -> Table:
    """Return density and reconstruction error by kind of projection.

    Parameters
    ----------
    record : PruneRecord
        The run.
    stored_bytes : mapping of str to int, optional
        What each layer's weight takes on disk, by layer name; adds a column.

    Returns
    -------
    rich.table.Table
        A row a kind, in the model's order.
    """
    extra = () if stored_bytes is None else ("on disk",)
    columns = ("kind", "layers", "weights", "density", "error", *extra)
    table = _figures("By kind of projection", *columns)
    for kind in by_kind(record.layers):
        cells = [
            str(len(kind.layers)),
            f"{kind.size:,}",
            percent(kind.density),
            f"{kind.error:.2g}",
        ]
        if stored_bytes is not None:
            cells.append(_stored(stored_bytes, kind.layers))
        table.add_row(Text(kind.name), *cells)
    return table


def layer_table(record: PruneRecord, stored_bytes: Mapping[str, int] | None = None) -> Table:
    """Return density and reconstruction error of every layer.

    Parameters
    ----------
    record : PruneRecord
        The run.
    stored_bytes : mapping of str to int, optional
        What each layer's weight takes on disk, by layer name; adds a column.

    Returns
    -------
    rich.table.Table
        A row a layer, in the model's order.
    """
    extra = () if stored_bytes is None else ("on disk",)
    table = _figures("By layer", "layer", "shape", "kept", "density", "error", *extra)
    for layer in record.layers:
        cells = [
            "x".join(map(str, layer.shape)),
            f"{layer.kept:,}",
            percent(layer.density),
            f"{layer.error:.2g}",
        ]
        if stored_bytes is not None:
            cells.append(_stored(stored_bytes, [layer]))
        table.add_row(Text(layer.name), *cells)
    return table


def _stored(stored_bytes: Mapping[str, int], layers: Sequence[LayerRecord]) -> str:
    """Return what layers take on disk, if it is known of all."""
    if any(layer.name not in stored_bytes for layer in layers):
        return _UNKNOWN
    return bytes_text(sum(stored_bytes[layer.name] for layer in layers))


def _perplexities(record: PruneRecord) -> dict[str, str]:
    held = record.evaluation
    dense, pruned = held.get("dense_perplexity"), held.get("pruned_perplexity")
    return {
        "perplexity, dense": _UNKNOWN if dense is None else number(dense),
        "perplexity, pruned": _UNKNOWN
        if pruned is None
        else number(pruned) + _ratio(pruned, dense),
    }


def _to_measure(record: PruneRecord) -> str:
    """Return what the user has waited besides, where that was taken."""
    spent = record.timings.get("measuring")
    return "" if spent is None else f" to prune, {duration(spent)} to measure"


def _bytes_on_disk(record: PruneRecord) -> dict[str, str]:
    dense, sparse = record.evaluation.get("dense_bytes"), record.evaluation.get("sparse_bytes")
    return {
        "on disk, dense": _UNKNOWN if dense is None else bytes_text(dense),
        "on disk, sparse": _UNKNOWN
        if sparse is None
        else bytes_text(sparse) + _ratio(sparse, dense),
    }


def _ratio(value: float, base: float | None) -> str:
    return f" ({times(value, base)})" if base else ""


def _listed(values: Mapping[str, object], joint: str) -> str:
    return ", ".join(f"{key}{joint}{value}" for key, value in values.items()) or "not recorded"


def _two_columns(title: str, rows: Mapping[str, str]) -> Table:
    table = Table(title=Text(title), show_header=False, title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _figures(title: str, first: str, *rest: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, overflow="fold")
    for column in rest:
        table.add_column(column, justify="right", no_wrap=True)
    return table
