"""The catalogue on the terminal: cards, usage and evidence."""

from __future__ import annotations

__all__ = [
    "describe",
    "earlier_rule",
    "evidence_result",
    "experiment_progress",
    "listing",
    "method_data",
    "print_evidence",
    "provenance",
    "run_evidence",
    "usage",
]

import inspect
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..core.card import Entry, entries, entry_of, find
from ..core.columns import Fitted
from ..core.errors import ThresherError, unknown
from ..core.evidence import available, execute
from ..core.numbers import number
from ..core.terminal import manner, show
from .docstrings import wrapped

_console = Console(emoji=False)  # n:m:g is the name of a layout


def method_data(name: str | None = None, area: str | None = None) -> list[dict[str, Any]]:
    """Return the catalogue, an area of it, or one method, as plain data.

    Parameters
    ----------
    name : str, optional
        A card name.
    area : str, optional
        A room of methods, such as ``"prune"``.

    Returns
    -------
    list of dict
        Card fields, ``area``, ``class``, ``usage`` and ``evidence`` (None before it ran).
    """
    chosen = [entry_of(find(name))] if name else _in_area(area)
    return [
        {
            **asdict(entry.card),
            "area": entry.area,
            "class": f"{entry.module}.{entry.qualname}",
            "usage": usage(entry),
            "evidence": evidence_result(entry.card.name),
        }
        for entry in chosen
    ]


def usage(entry: Entry) -> str:
    """Return the line of Python that uses a method."""
    if entry.verb is None:
        return f"from {entry.module} import {entry.qualname}"
    # Without half of its units hardly a model is of use.
    density = "density=0.8" if "SmallerRecipe" in entry.bases else "density=0.5"
    share = density if entry.verb == "prune" else "sparsity=0.5"
    return f'thresher.{entry.verb}(model, "{entry.card.name}", {share})'


def evidence_result(name: str) -> dict[str, Any] | None:
    """Return the recorded evidence of a method, or None."""
    file = files("thresher") / "evidence" / "results" / f"{name}.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found


def listing(area: str | None = None) -> None:
    """Print every method, or those of an area, a line each."""
    table = Table(title="Methods")
    for column in ("name", *(["area"] if area is None else []), "year", "what it does", "evidence"):
        table.add_column(column, overflow="fold")
    for entry in _in_area(area):
        card, place = entry.card, [entry.area] if area is None else []
        table.add_row(card.name, *place, str(card.year), card.summary, _verdict(card.name))
    show(method_data(area=area), table)


def _in_area(area: str | None) -> list[Entry]:
    """Return the methods of an area, or all by area: what `thresher prune` takes comes first."""

    def place(entry: Entry) -> tuple[bool, str, bool, str]:
        return entry.area != "prune", entry.area, entry.verb is None, entry.card.name

    found = sorted(entries().values(), key=place)
    areas = {entry.area for entry in found}
    if area is not None and area not in areas:
        raise unknown("area", area, areas)
    return [entry for entry in found if area in (None, entry.area)]


def _estimators(name: str) -> list[dict[str, str]]:
    """Return the linear models, which have no card, whose names hold a text."""
    from .. import linear

    wanted = name.replace("-", "").replace("_", "").lower()
    found = []
    for each in sorted(linear.__all__, key=lambda each: (len(each), each)):
        held = getattr(linear, each)
        if wanted and wanted in each.lower() and inspect.isclass(held):
            summary = (inspect.getdoc(held) or "").partition("\n")[0]
            found.append({"name": each, "summary": summary, "usage": f"{linear.__name__}.{each}"})
    return found


def _estimator_table(name: str, estimators: Sequence[dict[str, str]]) -> Table:
    table = Table(title=f"Linear models with {name!r} in their names")
    for column in ("name", "what it does", "usage"):
        table.add_column(column, overflow="fold")
    for each in estimators:
        table.add_row(each["name"], each["summary"], each["usage"])
    return table


def describe(name: str) -> None:
    """Print one method's card, usage, documentation and evidence, or the linear models so named."""
    if name not in entries() and (estimators := _estimators(name)):
        show(estimators, _estimator_table(name, estimators))
        return
    if manner().json:
        show(method_data(name))
        return
    method = find(name)
    entry, card = entry_of(method), method.card
    table = Table(show_header=False, title=card.name)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("paper", card.title)
    table.add_row("authors", f"{card.authors} ({card.year})")
    if card.arxiv:
        table.add_row("arXiv", card.arxiv)
    table.add_row("area", entry.area)
    table.add_row("usage", usage(entry))
    table.add_row("source", inspect.getsourcefile(method))
    _console.print(table)
    text = wrapped(inspect.getdoc(method) or card.summary, _console.width)
    _console.print(text, markup=False, soft_wrap=True)
    result = evidence_result(card.name)
    if result is None:
        _console.print(f"\nno evidence recorded; try: thresher evidence {card.name}")
    else:
        print_evidence(result)


def print_evidence(result: dict[str, Any]) -> None:
    """Print an experiment's claim, table and verdict."""
    _console.print(f"\n[bold]method[/bold]    {result['method']}")
    _console.print(f"[bold]claim[/bold]     {result['claim']}")
    _console.print(f"[bold]baseline[/bold]  {result['baseline']}")
    rows = result["table"]
    if rows:
        table = Table()
        for column in rows[0]:
            table.add_column(str(column), justify="right")
        for row in rows:
            table.add_row(*(_cell(row.get(column)) for column in rows[0]))
        _console.print(Fitted(table))
    for part, slack in result.get("slacks", {}).items():
        _console.print(f"[bold]slack[/bold]     {_cell(slack)}: {part}")
    verdict = "reproduced" if result["reproduced"] else "not reproduced"
    margin = _cell(result["margin"])
    for earlier in result.get("earlier", []):
        _console.print(f"[bold]earlier[/bold]   {earlier_rule(earlier)}")
    if "machine" in result:
        _console.print(f"[bold]recorded[/bold]  {provenance(result)}")
    _console.print(f"[bold]{verdict}[/bold] (margin {margin}): {result['summary']}")


def earlier_rule(earlier: dict[str, Any]) -> str:
    """Return what a replaced rule asked, its verdict, and why it was replaced."""
    verdict = "reproduced" if earlier["reproduced"] else "not reproduced"
    return (
        f"the rule was: {earlier['rule']}. It said {verdict}, margin {_cell(earlier['margin'])}; "
        f"replaced because {earlier['why']}."
    )


def provenance(result: dict[str, Any]) -> str:
    """Return when, where and by which code a result was recorded, and the noise of its timings."""
    machine = result["machine"]
    parts = [
        result["date"],
        f"commit {result['commit'] or 'unknown'}",
        f"{machine['processor']} ({machine['architecture']}), {machine['cores']} cores",
        f"{result['seconds']:g} s",
        f"load before {_cell(machine['load_before'])}",
    ]
    if result["noise"] is not None:
        parts.append(f"noise of timings {result['noise']:.0%}")
    return ", ".join(parts)


def run_evidence(names: Sequence[str], scale: float, seeds: int | None, out: Path) -> None:
    """``thresher evidence``: rerun experiments, all if none is named, and print the verdicts.

    Raises
    ------
    ThresherError
        If experiments failed, naming them; what the others found is written by then.
    """
    chosen = list(names) or available()
    failed: list[str] = []
    results = []
    for each in chosen:
        try:
            results.append(_rerun(each, scale, seeds, out))
        except Exception as error:  # of any kind: the others' work is worth more than an early end
            if len(chosen) == 1:
                raise
            failed.append(each)
            Console(stderr=True).print(f"{each} failed: {error!r}", style="red", markup=False)
    if manner().json:
        show(results)
    if failed:
        raise ThresherError(
            f"{len(failed)} of {len(chosen)} experiments failed: {', '.join(failed)}; "
            f"thresher evidence {failed[0]} -v shows the first in full"
        )


def _rerun(name: str, scale: float, seeds: int | None, out: Path) -> dict[str, Any]:
    """Run one experiment, print what it found unless JSON is wanted, and return it."""
    chosen = None if seeds is None else range(seeds)
    if manner().json:
        return execute(name, scale=scale, seeds=chosen, folder=out)
    with experiment_progress(name):
        result = execute(name, scale=scale, seeds=chosen, folder=out)
    print_evidence(result)
    _console.print(f"{result['seconds']} s; wrote {out / name}.json and .html")
    return result


@contextmanager
def experiment_progress(name: str) -> Iterator[None]:
    """Show on the terminal, while the context lasts, how far the experiment on `name` is."""
    running = f"running the experiment on {name}"
    log = logging.getLogger("thresher.evidence")
    with _console.status(f"{running} ...") as status:
        handler = _Follower(lambda text: status.update(f"{running}: {text} ..."))
        level = log.level
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(level)


class _Follower(logging.Handler):
    """Passes messages on."""

    def __init__(self, follow: Callable[[str], None]) -> None:
        super().__init__()
        self._follow = follow

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one message on."""
        self._follow(record.getMessage())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return number(value) if isinstance(value, float) else str(value)


def _verdict(name: str) -> str:
    result = evidence_result(name)
    if result is None:
        return "none"
    return "reproduced" if result["reproduced"] else "not reproduced"
