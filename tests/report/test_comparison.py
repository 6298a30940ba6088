"""The table, the report and the charts of a comparison."""

import dataclasses
import io
import re

import pytest
from rich.console import Console

from thresher.prune.comparison import ComparedModel, Comparison
from thresher.report.comparison import (
    comparison_tables,
    render_comparison,
    show_comparison,
    write_comparison,
)
from thresher.report.pareto import PRICES, chart_of_bargains, frontier

from .chromium import find_chromium, open_page, take_picture
from .test_chromium import ARTIFACTS
from .test_html import Structure


def model(method, density, perplexity, **more):
    row = ComparedModel(f"{method}-{density}", method, "row", density, density, perplexity)
    row.kl, row.top1_agreement, row.seconds, row.peak_bytes = 0.5, 0.6, 12.0, 900_000_000
    row.stored_bytes, row.packed_bytes = int(3e8 * density), int(2e8 * density)
    row.tokens_per_second, row.speedup = 30.0 / density, 1 / density
    row.speedup_least, row.speedup_most, row.layouts = 0.9 / density, 1.1 / density, "9 bitmask"
    return dataclasses.replace(row, **more)


@pytest.fixture
def comparison():
    dense = model("dense", 1.0, 20.0, name="dense", kl=0.0, layouts="dense", dtype="bfloat16")
    rows = [
        dense,
        model("wanda", 0.5, 60.0, tasks={"questions": {"accuracy": 0.25, "questions": 8}}),
        model("wanda", 0.7, 25.0),
        model("<best>", 0.5, 45.0, noisy=True),
        ComparedModel("wanda-3of7", "wanda", "3:7", 3 / 7, error="layer 'q_proj': no <such>"),
        model("magnitude", 0.5, 900.0, tokens_per_second=None, speedup=None),
    ]
    rows[-1].missing = rows[2].missing = {"tokens_per_second": "the model has 8 positions"}
    text = {"source": "book.txt", "windows": 64, "length": 1024, "held_out": 16, "other": ""}
    missing = {"other_perplexity": "no second text is at hand"}
    return Comparison(
        "models/tiny", text, None, 2, rows, missing, "", {"torch": "2.13"}, "Some CPU"
    )


def words(comparison):
    page = Structure(render_comparison(comparison))
    assert page.open == []
    return " ".join("".join(page.text).replace("\xa0", " ").split())


def test_the_report_holds_every_row(comparison):
    text = words(comparison)
    assert "tiny: wanda, <best>, magnitude compared" in text
    rows = re.findall(r"<tr>(.*?)</tr>", render_comparison(comparison).partition("</table>")[0])
    assert len(rows) == 1 + len(comparison.rows)
    for row in comparison.rows:
        assert row.method in text
    assert "wanda-3of7 failed: layer 'q_proj': no <such>" in text
    assert "2x (1.8 to 2.2), noisy" in text
    assert "runs dense, in bfloat16" in text
    assert "25 %" in text
    assert "With 50 % kept, the lowest of 3 is 45, by <best>." in text
    assert "1 of 5 models could not be made." in text
    assert "No other text: no second text is at hand." in text
    assert "No tokens/s of wanda-0.7, magnitude-0.5: the model has 8 positions." in text
    assert "Times are of 2 models being made at a time." in text


@pytest.mark.parametrize(("width", "parts"), [(133, 2), (132, 3), (60, 6), (10, 12)])
def test_the_table_fits_the_terminal(comparison, width, parts):
    tables = comparison_tables(comparison, width)
    assert len(tables) == parts
    shown = []
    for table in tables:
        held = [[column.header, *column.cells] for column in table.columns]
        assert [column[0] for column in held[:2]] == ["model", "pattern"]
        assert [str(cell) for cell in held[0][1:3]] == ["dense", "wanda 50 %"]
        shown += held[2:]
        console = Console(width=300, record=True, file=io.StringIO())
        console.print(table)
        lines = console.export_text().splitlines()
        # The narrowest has one column beside the names, whatever room there is.
        assert len(held) == 3 or max(map(len, lines)) <= width
    heads = [column[0] for column in shown]
    assert len(set(heads)) == len(heads) == 12
    assert {"kept", "top-1", "questions", "remark"} < set(heads)
    assert "other text" not in heads


def test_the_terminal_shows_the_same(comparison, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    show_comparison(comparison, tmp_path / "report.html")
    text = capsys.readouterr().out
    for cell in ("wanda 42.86 %", "2x (1.8 to 2.2), noisy", " 45 ", "25 %", " failed "):
        assert cell in text
    assert "With 50 % kept, the lowest of 3 is 45, by <best>." in text
    assert "With 70 % kept, it is 25, by wanda." in text
    assert "wanda-3of7 failed: layer 'q_proj': no <such>" in text
    assert "No other text: no second text is at hand." in text


def test_a_page_has_its_charts_and_no_other(comparison):
    page = Structure(render_comparison(comparison))
    labels = [svg["aria-label"] for svg in page.named("svg")]
    assert ["weights on disk" in label for label in labels] == [True, False, False]
    for row in comparison.rows:
        row.speedup = None
    page = Structure(render_comparison(comparison))
    assert len(page.named("svg")) == 2


def test_the_frontier_is_what_nothing_beats():
    points = [(1, 9), (2, 5), (2, 6), (3, 5), (4, 1), (5, 2)]
    assert frontier(points, more=False) == [(1, 9), (2, 5), (4, 1)]
    assert frontier(points, more=True) == [(5, 2), (4, 1)]


def test_a_chart_says_who_is_not_beaten(comparison):
    chart = chart_of_bargains(PRICES[0], comparison.rows)
    told = {row[0]: row[-1] for row in chart.rows}
    assert told == {
        "dense": "yes",
        "wanda, 50 % row": "no",
        "wanda, 70 % row": "yes",
        "<best>, 50 % row": "yes",
        "magnitude, 50 % row": "no",
    }
    assert chart_of_bargains(PRICES[0], comparison.rows[:1]) is None


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine")
def test_a_browser_draws_it_without_complaint(comparison, tmp_path):
    page = tmp_path / "report.html"
    write_comparison(comparison, page)
    document, console = open_page(page, tmp_path / "profile", "--dump-dom")
    assert console == []
    assert document.count("<svg") == 3
    picture = ARTIFACTS / "comparison.png"
    assert take_picture(page, tmp_path / "profile", picture, "1200,2600", dark=False) == []
