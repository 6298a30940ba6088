"""The charts of the report, as data: what is drawn, and what is folded into a sentence."""

import math

import pytest

from thresher.report.charts import histograms
from thresher.report.damage import (
    charts_of_layers,
    exclusions,
    flat_sentences,
    kind_rows,
    massive,
)
from thresher.report.decision import charts_of_decision

from .test_answers import SPEED


def drawn(chart):
    return {
        series.name: list(zip(series.x, series.y, strict=True)) for series in chart.figure.series
    }


def test_without_bytes_cuts_are_drawn_by_what_they_remove(record):
    (chart,) = charts_of_decision(record)
    found = drawn(chart)
    removed = 100 * (1 - record.density)
    # The star is of the same method, and so on the line.
    assert found["wanda"] == [
        (pytest.approx(x), y / 20)
        for x, y in [
            *((0, 20.0), (10, 20.4), (20, 21.5), (30, 23.8), (40, 29.0)),
            *((removed, 45.0), (50, 45.0), (60, 130.0)),
        ]
    ]
    assert found["this model"] == [(pytest.approx(removed), 2.25)]
    assert chart.figure.y.log
    assert [line.y for line in chart.figure.lines] == [1.2]
    assert ["30 % removed", "30", "23.8", "1.19x"] in chart.rows


def test_bytes_and_speed_are_what_a_cut_is_for(record):
    for point in record.evaluation["curve"]:
        point["bytes"] = int(269e6 * point["density"])
    record.speed = SPEED
    size, speed = charts_of_decision(record)
    assert drawn(size)["wanda"][-1] == (269.0, 1.0)
    assert drawn(size)["this model"] == [(185.0, 2.25)]
    assert drawn(speed) == {"dense": [(20.0, 1.0)], "this model": [(30.0, 2.25)]}
    # One cut without bytes, and none is drawn by them.
    del record.evaluation["curve"][0]["bytes"]
    assert charts_of_decision(record)[0].figure.x.title == "weights removed, %"
    del record.evaluation["dense_perplexity"]
    assert charts_of_decision(record) == []


def test_nothing_but_the_ends_is_no_curve(record):
    del record.evaluation["curve"]
    assert charts_of_decision(record) == []


def test_errors_are_cells_by_block_and_kind(record):
    (chart,) = charts_of_layers(record)
    assert chart.figure.rows[:2] == ["q_proj", "k_proj"]
    assert chart.figure.columns == ["0", "1", "2", "3"]
    assert chart.figure.values[0] == pytest.approx([0.02, 0.16, 0.30, 0.44])
    assert chart.figure.labels[1][2] == "k_proj, block 2: 0.32"
    assert chart.rows[2][:3] == ["2", "0.3", "0.32"]
    for layer in record.layers:
        layer.block = 0
    assert charts_of_layers(record) == []


def test_a_density_that_is_the_same_everywhere_is_a_sentence(record):
    for layer in record.layers:
        layer.kept = layer.size // 2
    assert flat_sentences(record) == ["Every one of the 28 layers keeps 50 % of its weights."]
    record.layers[3].kept = layer.size // 4
    assert flat_sentences(record) == []
    assert [chart.name for chart in charts_of_layers(record)] == ["error", "density"]


def test_an_error_far_below_its_kind_is_no_success(record):
    assert massive(record) == []
    for layer in record.layers:
        layer.error = 0.1
    record.layers[-1].error = 0.0009
    (sentence,) = massive(record)
    assert sentence.startswith("down_proj in block 3 (0.0009): more than 100 times below")
    assert "massive activations" in sentence
    record.layers[-1].error = 0.0011
    assert massive(record) == []


def test_layers_that_stand_out_can_be_left_dense(record):
    for layer in record.layers:
        layer.error = 0.1
    assert exclusions(record) == ([], 0.0)
    record.layers[4].name, record.layers[4].error = "experts.up[3]", 0.3
    record.layers[7].error = 0.21
    options, share = exclusions(record)
    # A name is a pattern, in which brackets have a meaning of their own.
    assert options == ["--exclude", "experts.up[[]3]", "--exclude", "model.layers.1.q_proj"]
    assert share == pytest.approx(2 / 28)


def test_kinds_are_gathered(record):
    assert kind_rows(record)[0] == ["q_proj", "4", "12,288", "50.34 %", "0.23"]
    for index, layer in enumerate(record.layers):
        layer.name = f"features.conv{index}"
    assert len(kind_rows(record)) == 16
    assert kind_rows(record)[-1][0] == "13 other kinds"


def test_histograms_count_the_record(record):
    before, after = histograms(record)[0].figure.series
    assert sum(before.y) == 4 * sum(record.layers[0].histogram["dense"])
    assert sum(after.y) == 4 * sum(record.layers[0].histogram["pruned"])
    assert math.isclose(before.x[0], -4 + 4 / 60)
