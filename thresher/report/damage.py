"""Where pruning hurt: error by block and kind, and what could be left dense."""

from __future__ import annotations

__all__ = ["charts_of_layers", "exclusions", "flat_sentences", "kind_rows", "massive"]

import glob
import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.figure import Cells
from ..core.numbers import percent
from .charts import Chart
from .kinds import Kind, by_kind

if TYPE_CHECKING:
    from ..prune.record import LayerRecord, PruneRecord

#: More kinds than this are gathered in one row.
_MOST_KINDS = 16
#: Densities that differ by no more are the same to whoever reads them.
_FLAT = 0.01
#: How many times smaller than its kind's median an error is that says something else.
_MASSIVE = 100
_EXCLUDED = 5


def charts_of_layers(record: PruneRecord) -> list[Chart]:
    """Return error, and density where it differs, by block and kind of projection.

    Parameters
    ----------
    record : PruneRecord
        Models whose layers lie in one block have no such chart.
    """
    if record.blocks < 2:
        return []
    charts = [
        _heat(
            record,
            ("error", "Error by block and kind", "relative error of the output"),
            lambda layer: layer.error,
            "{:.2g}".format,
        )
    ]
    if not _is_flat(record):
        density = ("density", "Density by block and kind", "density")
        charts.append(_heat(record, density, lambda layer: layer.density, percent))
    return charts


def flat_sentences(record: PruneRecord) -> list[str]:
    """Return what a chart would show that shows the same everywhere."""
    if not record.layers or not _is_flat(record):
        return []
    found = [layer.density for layer in record.layers]
    low, high = percent(min(found)), percent(max(found))
    span = f"keeps {low}" if low == high else f"keeps {low} to {high}"
    return [f"Every one of the {len(found)} layers {span} of its weights."]


def kind_rows(record: PruneRecord) -> list[list[str]]:
    """Return kinds of projection: name, layers, weights, density and mean error."""
    return [
        [
            kind.name,
            str(len(kind.layers)),
            f"{kind.size:,}",
            percent(kind.density),
            f"{kind.error:.2g}",
        ]
        for kind in by_kind(record.layers, _MOST_KINDS)
    ]


def massive(record: PruneRecord) -> list[str]:
    """Return sentences on errors that are small because a few outputs are huge.

    Massive activations, a few values thousands of times larger than the others, make up nearly
    all of an output's square, so that the relative error says nothing of the rest.

    References
    ----------
    Sun et al., Massive Activations in Large Language Models (2024).
    """
    found = []
    for kind in by_kind(record.layers):
        errors = [layer.error for layer in kind.layers if layer.error > 0]
        if len(errors) < 4:
            continue
        median = statistics.median(errors)
        small = [x for x in kind.layers if 0 < x.error < median / _MASSIVE]
        if small:
            where = ", ".join(f"block {x.block} ({x.error:.2g})" for x in small)
            found.append(
                f"{kind.name} in {where}: more than {_MASSIVE} times below the kind's median of "
                f"{median:.2g}. Probably massive activations, a few huge values that make up "
                "nearly all of the output's square; the small error is no success."
            )
    return found


def exclusions(record: PruneRecord) -> tuple[list[str], float]:
    """Return options that leave the layers dense that changed most, and their share of weights.

    Parameters
    ----------
    record : PruneRecord
        Up to five layers are named, whose error is more than twice the median.

    Returns
    -------
    options : list of str
        ``--exclude`` and a name, alternately; empty where no layer stands out.
    share : float
        Of the pruned layers' weights.
    """
    if not record.layers:
        return [], 0.0
    median = statistics.median(layer.error for layer in record.layers)
    ordered = sorted(record.layers, key=lambda layer: -layer.error)[:_EXCLUDED]
    worst = [layer for layer in ordered if layer.error > 2 * median]
    options = [word for layer in worst for word in ("--exclude", glob.escape(layer.name))]
    total = sum(layer.size for layer in record.layers)
    return options, sum(layer.size for layer in worst) / max(1, total)


def _is_flat(record: PruneRecord) -> bool:
    found = [layer.density for layer in record.layers]
    return max(found) - min(found) <= _FLAT


def _heat(
    record: PruneRecord,
    names: tuple[str, str, str],
    value: Callable[[LayerRecord], float],
    text: Callable[[float], str],
) -> Chart:
    name, title, label = names
    kinds = by_kind(record.layers, _MOST_KINDS)
    blocks = sorted({layer.block for layer in record.layers})
    means = [_mean_by_block(kind, value) for kind in kinds]
    values = [[held.get(block, float("nan")) for block in blocks] for held in means]
    told = [
        [f"{kind.name}, block {b}: {text(held[b])}" if b in held else "" for b in blocks]
        for kind, held in zip(kinds, means, strict=True)
    ]
    known = [v for held in means for v in held.values()]
    log = name == "error" and min(known) >= 0
    scale = ", on a logarithmic scale" if log else ""
    caption = (
        f"{label.capitalize()} of every block and kind: the more colour, the larger, from "
        f"{text(min(known))} to {text(max(known))}{scale}; the lowest twentieth is equally pale."
    )
    cells = Cells(
        [str(block) for block in blocks], [k.name for k in kinds], values, "block", "", told, log
    )
    rows = [
        [str(block), *(text(held[block]) if block in held else "" for held in means)]
        for block in blocks
    ]
    columns = ["block", *(kind.name for kind in kinds)]
    return Chart(name, title, caption, cells, columns, rows, height=70 + 22 * len(kinds))


def _mean_by_block(kind: Kind, value: Callable[[LayerRecord], float]) -> dict[int, float]:
    held = defaultdict(list)
    for layer in kind.layers:
        held[layer.block].append(value(layer))
    return {block: sum(values) / len(values) for block, values in sorted(held.items())}
