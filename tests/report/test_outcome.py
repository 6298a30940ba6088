"""What a pruning command says last, and that its tables fit the terminal."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from thresher.core.columns import Fitted, parts_of
from thresher.report.methods import listing
from thresher.report.outcome import outcome
from thresher.report.tables import kind_table, layer_table, recipe_table, summary_table

OUT = Path("small model")


def lines(width: int, *shown: object) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(*shown, sep="\n")
    return console.file.getvalue().splitlines()


def test_a_costly_cut_is_said_with_what_recovers_it(record):
    told = outcome(record, OUT)
    assert "(0.688x)" in told.plain
    assert "from 20 to 45 (2.25x)" in told.plain
    assert "heal 'small model' --minutes 30" in told.plain
    assert told.spans[0].style == "yellow"


def test_a_cheap_cut_is_to_be_timed(record):
    record.evaluation["pruned_perplexity"] = 21.0
    told = outcome(record, OUT)
    assert "bench 'small model' --dense" in told.plain
    assert told.spans[0].style == "green"


def test_what_was_not_measured_can_be_measured(record):
    del record.evaluation["pruned_perplexity"]
    assert "Lost: not measured." in outcome(record, OUT).plain
    assert "eval 'small model' --text FILE" in outcome(record, OUT).plain


def test_a_broken_model_is_no_cheap_one(record):
    record.evaluation["pruned_perplexity"] = float("nan")
    assert outcome(record, OUT).spans[0].style == "yellow"


def test_the_curve_names_the_largest_cheap_cut(record):
    record.evaluation["curve"] = [
        {"density": density, "perplexity": value, "method": "wanda"}
        for density, value in ((0.9, 20.5), (0.7, 23.0), (0.6, 30.0))
    ]
    assert "30 % removed stays within 1.2x" in outcome(record, OUT).plain


@pytest.mark.parametrize("found", ["/usr/bin/thresher", None])
def test_the_command_can_be_typed_as_it_was_called(record, monkeypatch, found):
    monkeypatch.setattr("shutil.which", lambda name: found)
    monkeypatch.setattr(sys, "argv", [".venv/bin/thresher", "prune"])
    called = "thresher heal" if found else ".venv/bin/thresher heal"
    assert f"Next: {called}" in outcome(record, OUT).plain


@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit(record, width):
    sizes = {layer.name: 3456 for layer in record.layers}
    measured = (lambda r: kind_table(r, sizes), lambda r: layer_table(r, sizes))
    tables = (summary_table, recipe_table, kind_table, *measured)
    for make in tables:
        text = lines(width, Fitted(make(record)))
        assert max(map(len, text)) <= width
        # Figures are whole: no cell is cut.
        assert not any("…" in line for line in text)


@pytest.mark.parametrize("width", [80, 200])
def test_the_catalogue_fits(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    listing()
    text = capsys.readouterr().out.splitlines()
    assert max(map(len, text)) <= width
    assert not any("…" in line for line in text)


def test_a_table_is_parted_between_columns():
    table = Table(title="wide", caption="said at the end")
    for index in range(8):
        table.add_column(f"column {index}")
    table.add_row("first", *(f"{index} milliseconds" for index in range(1, 8)))
    parts = lines(60, Fitted(table))
    whole = lines(200, Fitted(table))
    assert max(map(len, parts)) <= 60
    for text in ("wide", "said at the end"):
        assert sum(text in line for line in parts) == 1
    assert sum("first" in line for line in parts) > 1
    assert sum("first" in line for line in whole) == 1
    for index in range(1, 8):
        assert sum(f"{index} milliseconds" in line for line in parts) == 1


def test_every_part_names_its_rows():
    assert parts_of([10, 10, 10], most=40) == [[0, 1, 2]]
    assert parts_of([10, 10, 10], most=39) == [[0, 1], [0, 2]]
    # A column that is too wide by itself has a part to itself.
    assert parts_of([10, 90, 10], most=39) == [[0, 1], [0, 2]]
