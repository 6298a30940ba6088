"""Tables on activation sparsity: what is dropped where, and what that cost."""

from __future__ import annotations

__all__ = ["activation_kinds", "activation_layers", "activation_outcome", "activation_summary"]

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..core.numbers import duration, number, percent, times

if TYPE_CHECKING:
    from ..activate.record import ActivationRecord, SiteRecord

_UNKNOWN = "not measured"


def activation_summary(record: ActivationRecord) -> Table:
    """Return what a calibration did and cost, one figure a row.

    Parameters
    ----------
    record : ActivationRecord
        Figures that its evaluation lacks are shown as not measured.
    """
    held, found = record.evaluation, record.coverage
    dense, sparse = held.get("dense_perplexity"), held.get("pruned_perplexity")
    total = found.get("parameters", 0)
    kept = sorted(found.get("kept", {}).items(), key=lambda item: -item[1])
    rows = {
        "recipe": record.recipe,
        "sparsity asked": percent(record.sparsity_asked),
        "not read in calibration": f"{percent(record.sparsity)} of the weights at "
        f"{len(record.sites)} sites, {percent(record.skipped)} of all that are covered",
        "parameters covered": f"{percent(found.get('covered', 0) / max(1, total))} of {total:,}",
        "kept dense": ", ".join(f"{percent(n / max(1, total))} {why}" for why, n in kept) or "none",
        "calibration": ", ".join(f"{k}: {v}" for k, v in record.calibration.items()) or _UNKNOWN,
        "perplexity, dense": _UNKNOWN if dense is None else number(dense),
        "perplexity, sparse": _UNKNOWN
        if sparse is None or dense is None
        else f"{number(sparse)} ({times(sparse, dense)})",
        "time": duration(record.timings.get("total", 0.0)),
    }
    if record.unseen:
        rows["never reached, dense"] = ", ".join(record.unseen[:6])
    table = Table(
        title=Text(f"{record.model}, activations by {record.method}"),
        show_header=False,
        title_justify="left",
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def activation_kinds(record: ActivationRecord) -> Table:
    """Return sparsity by kind of projection, a row a kind in the model's order."""
    kinds: dict[tuple[str, str], list[SiteRecord]] = {}
    for site in record.sites:
        kinds.setdefault((site.kind, site.side), []).append(site)
    table = _figures("By kind of projection", "kind", "side", "layers", "level")
    for (kind, side), sites in kinds.items():
        levels = _range(site.level for site in sites)
        table.add_row(Text(kind), side, str(len(sites)), levels, *_measured(sites))
    return table


def activation_layers(record: ActivationRecord) -> Table:
    """Return sparsity of every site, a row each in the model's order."""
    table = _figures("By layer", "layer", "side", "weights", "level")
    for site in record.sites:
        cells = (site.side, f"{site.weights:,}", percent(site.level))
        table.add_row(Text(site.name), *cells, *_measured([site]))
    return table


def activation_outcome(record: ActivationRecord, folder: str) -> Text:
    """Return a sentence on what a calibration came to, and a command that goes on from there."""
    dense = record.evaluation.get("dense_perplexity")
    sparse = record.evaluation.get("pruned_perplexity")
    lost = "not measured"
    if dense is not None and sparse is not None:
        lost = f"perplexity went from {number(dense)} to {number(sparse)} ({times(sparse, dense)})"
    return Text(
        f"Gained: {percent(record.skipped)} of the covered weights need not be read for a token. "
        f"Lost: {lost}.\nNext: thresher eval {folder} --text FILE --dense {record.model}"
    )


def _figures(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in (*columns, "calibration", "evaluation"):
        table.add_column(column, justify="left" if column in columns[:2] else "right")
    return table


def _measured(sites: Sequence[SiteRecord]) -> tuple[str, str]:
    evaluated = [site.evaluated for site in sites if site.evaluated is not None]
    return _range(site.sparsity for site in sites), _range(evaluated)


def _range(shares: Iterable[float]) -> str:
    """Return the least and the largest of shares."""
    found = sorted(shares)
    if not found:
        return _UNKNOWN
    first, last = percent(round(found[0], 3)), percent(round(found[-1], 3))
    return first if first == last else f"{first} to {last}"
