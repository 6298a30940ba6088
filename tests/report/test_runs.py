"""Runs that were made one by one, side by side."""

import dataclasses

import pytest

from thresher.core.errors import OptionError
from thresher.prune.wanda import Wanda
from thresher.report.comparison import render_comparison
from thresher.report.runs import compared_runs

from .test_answers import SPEED
from .test_html import Structure


@pytest.fixture
def other(record):
    evaluation = record.evaluation | {"pruned_perplexity": 30.0}
    return dataclasses.replace(
        record, method="magnitude", evaluation=evaluation, speed=SPEED, density_asked=0.7
    )


def test_runs_are_rows_under_the_names_of_their_folders(record, other):
    found = compared_runs({"a": record, "b": other})
    assert [row.name for row in found.rows] == ["dense", "a", "b"]
    assert [row.perplexity for row in found.rows] == [20.0, 45.0, 30.0]
    assert [row.stored_bytes for row in found.rows] == [269_000_000, 185_000_000, 185_000_000]
    assert [row.speedup for row in found.rows] == [1.0, None, 1.5]
    assert found.rows[2].pattern == "magnitude, per-row"
    text = " ".join("".join(Structure(render_comparison(found)).text).split())
    assert "tiny-llama: a, b compared" in text
    assert "are of 20 held-out windows of book.txt." in text
    assert "No tokens/s of a: `thresher bench --save` was not run." in text


def test_figures_of_another_text_do_not_stand_beside(record, other):
    record.evaluation["digest"] = "one"
    other.evaluation |= {"digest": "another", "text": "poems.txt"}
    found = compared_runs({"a": record, "b": other})
    assert [row.perplexity for row in found.rows] == [20.0, 45.0, None]
    assert found.rows[2].kl is None
    assert "poems.txt" in found.rows[2].missing["perplexity"]
    # What is no text's stays.
    assert found.rows[2].speedup == 1.5
    text = " ".join("".join(Structure(render_comparison(found)).text).split())
    assert "No perplexity of b: evaluated on another text than the first run (poems.txt)." in text


def test_a_run_that_was_not_evaluated_may_come_first(record, other):
    record.evaluation = {"sparse_bytes": 1}
    found = compared_runs({"a": record, "b": other})
    assert [row.perplexity for row in found.rows] == [20.0, None, 30.0]
    text = " ".join("".join(Structure(render_comparison(found)).text).split())
    assert "are of 20 held-out windows of book.txt." in text
    assert "No perplexity of a: `thresher eval --save` was not run." in text
    other.evaluation = {}
    text = "".join(Structure(render_comparison(compared_runs({"a": record, "b": other}))).text)
    assert "None" not in text
    assert "held-out windows" not in text


def test_figures_of_another_dense_model_do_not_stand_beside(record, other):
    record.evaluation |= {"dense_perplexity": 20.0}
    other.evaluation |= {"dense_perplexity": 20.2}
    assert compared_runs({"a": record, "b": other}).rows[2].perplexity == 30.0
    other.evaluation |= {"dense_perplexity": 12.0}
    found = compared_runs({"a": record, "b": other})
    assert [row.perplexity for row in found.rows] == [20.0, 45.0, None]
    assert "another dense model" in found.rows[2].missing["perplexity"]


def test_times_of_another_machine_do_not_stand_beside(record, other):
    record.speed = SPEED | {"processor": "Another CPU", "speedup": 9.0}
    found = compared_runs({"a": record, "b": other})
    assert [row.speedup for row in found.rows] == [1.0, 9.0, None]
    assert "another machine" in found.rows[2].missing["tokens_per_second"]


def test_one_run_is_no_comparison(record):
    with pytest.raises(OptionError, match="two runs or more"):
        compared_runs({"a": record})


def test_records_and_recipes_show_tables(record):
    text = record._repr_html_()
    assert "<caption>models/tiny-llama, pruned by wanda</caption>" in text
    assert '<th scope="row">perplexity, pruned</th><td>45</td>' in text
    assert '<th scope="row">density</th><td>0.5</td>' in Wanda(density=0.5)._repr_html_()
