"""What ``thresher compare`` does: several methods on one model, one table."""

from __future__ import annotations

__all__ = ["CompareJob", "compare_methods"]

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.markup import escape

from .comparing_plan import (
    Plan,
    absolute_tasks,
    drop_row,
    fingerprint_of,
    load_rows,
    save_row,
)
from .comparing_processes import check_parallel, plugin_files, run_processes
from .comparing_texts import read_texts
from .core.errors import CheckpointError, OptionError, ThresherError
from .core.files import write_text
from .core.machine import processor, versions
from .core.numbers import number
from .core.options import check_number, check_whole
from .core.output import COMPARISON, Output, check_apart, check_growing, writing
from .core.records import restored_from
from .prune.comparison import DENSE, ComparedModel, Comparison, cells_of
from .report.comparison import write_comparison
from .run.files.checkpoint import resolve
from .run.tasks import check_tasks
from .workflow import check_language_model

_T = TypeVar("_T")


def compare_methods(
    model: str | Path,
    methods: str | Sequence[str],
    out: str | Path,
    *,
    density: float | Sequence[float] = (),
    pattern: str | Sequence[str] = (),
    calibration: str | Path | None = None,
    other_text: str | Path | None = None,
    windows: int = 64,
    length: int = 1024,
    heal: float | None = None,
    tasks: str | Path | Sequence[str | Path] | None = None,
    parallel: int = 1,
    progress: bool = True,
) -> Comparison:
    """Prune a model by several methods, and measure each result beside the dense model.

    Every pruned model is made in a process of its own. A comparison that was stopped goes on when
    it is asked for again, and one that is there grows by the methods, densities and patterns that
    it has not got yet; what failed is tried again.

    Parameters
    ----------
    model : str or Path
        A Hugging Face folder or hub name of a causal language model.
    methods : str or sequence of str
        Names of methods, see :func:`~thresher.core.card.catalogue`.
    out : str or Path
        Folder to write: ``comparison.json``, ``report.html`` and every model in ``models/``.
    density : float or sequence of float, optional
        Shares of weights to keep.
    pattern : str or sequence of str, optional
        Patterns that imply a density, such as 2:4, are compared beside the densities; the others
        take the place of the methods' own at every density.
    calibration : str or Path, optional
        UTF-8 text file; by default Python's documentation. Models are evaluated on windows of it
        that none of them was calibrated or healed on.
    other_text : str or Path, optional
        Text of another genre, to evaluate on; by default *Emma*, if it was fetched before.
    windows, length : int, default 64 and 1024
        Calibration windows and their tokens, at most.
    heal : float, optional
        Minutes to heal every pruned model for.
    tasks : str, Path or sequence of them, optional
        Multiple-choice questions or tasks by name, see
        :func:`~thresher.run.tasks.evaluate_tasks`.
    parallel : int, default 1
        How many models to make at a time; more than one with Ray, ``thresher[ray]``. Speeds are
        measured afterwards, one by one.
    progress : bool, default True
        Show what is being done.

    Returns
    -------
    Comparison
        A row for every model, the dense one first; a model that could not be made has its error.

    Raises
    ------
    ThresherError
        If an option, a text or the model cannot be used, before any work; if no model could be
        made at all.
    """
    job = CompareJob(
        model,
        _listed(methods),
        out,
        density=_listed(density),
        pattern=_listed(pattern),
        calibration=calibration,
        other_text=other_text,
        windows=windows,
        length=length,
        heal=heal,
        tasks=tasks,
        parallel=parallel,
        progress=progress,
    )
    return job.run()


def _listed(value: _T | Iterable[_T]) -> list[_T]:
    """Return a list of what was given one by one or several at once."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value]  # type: ignore[list-item]
    return list(value)


class CompareJob:
    """A comparison from its options to its folder; see :func:`compare_methods`."""

    def __init__(
        self,
        model: str | Path,
        methods: Sequence[str],
        out: str | Path | None,
        *,
        density: Sequence[float],
        pattern: Sequence[str],
        calibration: str | Path | None,
        other_text: str | Path | None,
        windows: int,
        length: int,
        heal: float | None,
        tasks: str | Path | Sequence[str | Path] | None,
        parallel: int,
        progress: bool = True,
    ) -> None:
        check_parallel(parallel)
        check_whole("windows", windows)
        check_whole("length", length, 2)
        if heal is not None:
            check_number("heal", heal, above=0.0)
        if tasks is not None:
            check_tasks(tasks)
        self.cells = cells_of(methods, density, pattern)
        self.plugins = plugin_files(self.cells)
        # Other processes may have another working folder.
        self.source = resolve(str(model)).absolute()
        check_language_model(self.source)
        # Not inside the cache of the hub.
        beside = self.source.resolve() if Path(model).is_dir() else Path(Path(model).name)
        self.out = Path(out or f"{beside}-comparison")
        check_apart(self.source, self.out)
        check_growing(self.out)
        self.heal, self.tasks = heal, None if tasks is None else absolute_tasks(tasks)
        self.parallel, self.progress = parallel, progress
        self.console = Console(emoji=False, quiet=not progress)
        self.texts = read_texts(
            self.source, calibration, other_text, windows, length, heal is not None
        )
        self.fingerprint = fingerprint_of(self.source, self.texts.windows, heal, self.tasks)

    def run(self) -> Comparison:
        """Make and measure what is not there yet, and write table and report.

        Raises
        ------
        ThresherError
            If there is no model, or none could be made; what was measured is kept, to go on with.
        """
        with writing(self.out, "compare", keep=True) as output:
            self._take_up(output)
            rows = self._wanted(output)
            if output.out.exists() and all(row.evaluated and row.timed for row in rows.values()):
                return _read(output.out)
            self._begin(output, rows)
            self._make(output)
            self._time(output, list(rows))
            comparison = self._collected(output, list(rows))
            write_text(output.made / COMPARISON, json.dumps(asdict(comparison), indent=1) + "\n")
            write_comparison(comparison, output.made / "report.html")
            output.publish()
        return comparison

    def _take_up(self, output: Output) -> None:
        """Find that what stands there may be gone on with.

        Raises
        ------
        ThresherError
            If there is something else.
        """
        if Plan.is_in(output.work) and Plan.load(output.work).fingerprint != self.fingerprint:
            raise CheckpointError(
                f"{str(output.work)!r} holds an unfinished comparison of another model, text, "
                "options or versions; repeat those to go on with it, or delete it"
            )
        if not (output.out / COMPARISON).is_file():
            output.check_free()
        elif _read(output.out).fingerprint != self.fingerprint:
            raise OptionError(
                f"output folder {str(output.out)!r} holds a comparison of another model, text, "
                "options or versions; choose another"
            )

    def _wanted(self, output: Output) -> dict[str, ComparedModel]:
        """Return the rows of the table: those that are there, and those that are asked for."""
        made = output.out if output.out.exists() else output.made
        known: dict[str, ComparedModel] = {}
        if (made / COMPARISON).is_file():
            known = {row.name: row for row in _read(made).rows}
        known |= load_rows(output.work)
        dense = ComparedModel(DENSE, DENSE, "", 1.0)
        asked = {DENSE: dense} | {cell.name: cell.row() for cell in self.cells}
        there = {
            name: row
            for name, row in known.items()
            if name == DENSE or (made / "models" / name).is_dir()
        }
        kept = {name: row for name, row in there.items() if name in asked or row.evaluated}
        rows = {DENSE: there.get(DENSE, dense)} | kept
        return rows | {name: there.get(name, row) for name, row in asked.items()}

    def _begin(self, output: Output, rows: dict[str, ComparedModel]) -> None:
        """Write down what every process has to know; a finished comparison is opened again."""
        described = self.texts.described
        plan = Plan(
            str(self.source), self.fingerprint, described, self.heal, self.tasks, self.cells
        )
        plan.save(output.work)
        Plan.save_windows(output.work, self.texts.windows)
        if output.out.exists():
            os.rename(output.out, output.made)
        (output.made / "models").mkdir(parents=True, exist_ok=True)
        for name in load_rows(output.work).keys() - rows.keys():
            # Begun when other methods were asked for.
            shutil.rmtree(output.made / "models" / name, ignore_errors=True)
            drop_row(output.work, name)
        for row in rows.values():
            # What has failed is tried again.
            row.error = ""
            row.missing.pop("tokens_per_second", None)
            save_row(output.work, row)

    def _make(self, output: Output) -> None:
        """Evaluate the dense model, then make the others."""
        rows = load_rows(output.work)
        if not rows[DENSE].evaluated:
            self._run(output, [DENSE], "make", 1)
            if error := load_rows(output.work)[DENSE].error:
                raise ThresherError(f"the dense model could not be evaluated: {error}")
        left = [cell.name for cell in self.cells if not rows[cell.name].evaluated]
        self._run(output, left, "make", self.parallel)
        failed = [row for row in load_rows(output.work).values() if row.error]
        if len(failed) == len(rows) - 1:
            raise ThresherError(
                f"no model could be made; {failed[0].name} failed with: {failed[0].error}"
            )

    def _time(self, output: Output, names: Sequence[str]) -> None:
        """Measure speeds one by one, whatever was done side by side before."""
        rows = load_rows(output.work)
        left = [name for name in names if rows[name].evaluated and not rows[name].timed]
        if DENSE in left:
            self._run(output, [DENSE], "time", 1)
        why = load_rows(output.work)[DENSE].missing.get("tokens_per_second")
        others = [name for name in left if name != DENSE]
        if why is None:
            self._run(output, others, "time", 1)
            return
        for name in others:
            rows[name].missing["tokens_per_second"] = why
            save_row(output.work, rows[name])

    def _run(self, output: Output, names: Sequence[str], step: str, parallel: int) -> None:
        """Run processes, and note and tell what becomes of each."""

        def ended(name: str, status: int) -> None:
            row = load_rows(output.work)[name]
            if status:
                self._note_end(row, status, step)
                save_row(output.work, row)
            self.console.print(f"{escape(name)}: {escape(_told(row, step))}")

        if names:
            doing = "making" if step == "make" else "timing"
            self.console.print(f"{doing} {escape(', '.join(names))} ...")
        place = {name: [str(output.work), name, step] for name in names}
        run_processes(place, self.plugins, parallel, self.progress, ended)

    def _note_end(self, row: ComparedModel, status: int, step: str) -> None:
        killed = f"killed by signal {-status}, as where memory is short"
        said = f"its process was {killed}" if status < 0 else f"its process ended with {status}"
        if step == "make":
            row.error = said
        else:
            row.missing["tokens_per_second"] = said

    def _collected(self, output: Output, names: Sequence[str]) -> Comparison:
        rows = load_rows(output.work)
        return Comparison(
            str(self.source),
            self.texts.described,
            self.heal,
            self.parallel,
            [rows[name] for name in names],
            self.texts.missing,
            self.fingerprint,
            versions(),
            processor(),
        )


def _told(row: ComparedModel, step: str) -> str:
    """Return a row's news in a few words."""
    if step == "make":
        told = f"failed: {row.error}"
        return told if row.perplexity is None else f"perplexity {number(row.perplexity)}"
    rate, failed = row.tokens_per_second, row.missing.get("tokens_per_second")
    return f"not timed: {failed}" if rate is None else f"{number(rate)} tokens/s"


def _read(folder: Path) -> Comparison:
    remedy = f"choose another output folder than {str(folder)!r}"
    return restored_from(folder / COMPARISON, Comparison, "a comparison", remedy)
