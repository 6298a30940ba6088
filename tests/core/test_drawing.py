"""Figures as data and as SVG."""

import json
import math
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from thresher.core.drawing import PALETTE, draw, palette
from thresher.core.figure import Axis, Cells, Figure, Line, Series

SVG = "{http://www.w3.org/2000/svg}"
FIGURE = Figure(
    [
        Series("a line", [1, 2, 3], [1.0, math.inf, 1.23456], errors=[0.1, 0.2, 0.3]),
        Series("a $star$ <b>", [2.5], [2.0], "points", labels=["it's here"], star=True),
    ],
    Axis("MB"),
    Axis("times dense", log=True, unit="x"),
    "What it costs",
    [Line(1.2, "a line across")],
)


def parsed(figure, name="one") -> ElementTree.Element:
    return ElementTree.fromstring(draw(figure, name, "what it shows"))


def texts(root, tag="text") -> list[str]:
    return [each.text for each in root.iter(f"{SVG}{tag}")]


def test_text_is_text_and_points_say_what_they_are():
    root = parsed(FIGURE)
    assert {"a line", "a $star$ <b>", "MB", "times dense", "What it costs"} <= set(texts(root))
    assert {"2x", "a line across"} <= set(texts(root))
    # The value that is not finite is no point; digits of numbers in words are not cut.
    assert texts(root, "title") == ["a line: 1, 1", "a line: 3, 1.235", "it's here"]
    assert root.get("aria-label") == "what it shows"


def test_colours_and_fonts_are_the_pages():
    text = draw(FIGURE, "one", "")
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", text))
    assert colours == {"none", "var(--ink)", "var(--line)", "var(--series-0)", "var(--series-1)"}
    assert "DejaVu" not in text
    assert "<style" not in text


def test_ids_are_the_pictures_own():
    root, other = parsed(FIGURE, "one"), parsed(FIGURE, "other")
    ids = [each.get("id") for each in root.iter() if each.get("id")]
    assert ids
    assert len(ids) == len(set(ids))
    assert not set(ids) & {each.get("id") for each in other.iter()}
    text = ElementTree.tostring(root, encoding="unicode")
    assert set(re.findall(r"""(?:url\(|href=")#([^")]+)""", text)) == set(ids)


def test_the_same_figure_is_the_same_text():
    drawn = draw(FIGURE, "one", "")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert draw(FIGURE, "one", "") == drawn
        assert matplotlib.rcParams["font.size"] == 30


def test_a_line_of_many_points_is_a_line():
    for count, marks in ((60, 60), (61, 0)):
        figure = Figure([Series("one", list(range(count)), [1.0] * count)])
        assert len(list(parsed(figure).iter(f"{SVG}use"))) == marks
        assert len(texts(parsed(figure), "title")) == marks


def test_names_have_places_and_bins_edges():
    named = Figure([Series("one", ["2:4", "4:8"], [0.5, 0.25])])
    assert {"2:4", "4:8"} <= set(texts(parsed(named)))
    modes = ("area", "steps")
    bins = Figure([Series(mode, [-1, 0, 1], [4, 0, 2], mode) for mode in modes])
    assert {"area", "steps"} <= set(texts(parsed(bins)))


def shades(values, log) -> list[str]:
    labels = [[f"{i},{j}" for j in range(len(row))] for i, row in enumerate(values)]
    columns, rows = [str(j) for j in range(len(values[0]))], [str(i) for i in range(len(values))]
    root = parsed(Cells(columns, rows, values, "block", "", labels, log))
    found = {}
    for path in root.iter(f"{SVG}path"):
        title = path.find(f"{SVG}title")
        if title is not None:
            found[title.text] = float(re.search(r"opacity: ([\d.]+)|$", path.get("style"))[1] or 1)
    return found


@pytest.mark.parametrize("log", [False, True])
def test_cells_are_the_stronger_the_larger(log):
    found = shades([[1.0, 10.0, 100.0], [math.nan, 0.0, 1.0]], log)
    assert set(found) == {"0,0", "0,1", "0,2", "1,1", "1,2"}
    assert found["1,1"] <= found["0,0"] == found["1,2"] < found["0,1"] < found["0,2"] == 1
    # Half way on a logarithmic scale.
    assert (found["0,1"] > 0.5) == log


@pytest.mark.parametrize("values", [[], [math.nan], [0.0], [-1.0, 0.0], [1e300, 1e-300]])
@pytest.mark.parametrize("log", [False, True])
def test_any_values_are_drawn(values, log):
    figure = Figure([Series("a", list(range(len(values))), values)], y=Axis("y", log))
    assert "y" in texts(parsed(figure))


def test_no_cell_is_more_than_opaque():
    # 0.92 * 5 / 5 is rounded up.
    assert shades([[0.0, 5.0]], log=False)["0,1"] == 1


def test_axes_of_many_decades_have_few_labels():
    for high in (1.01, 1.5, 30.0, 1e4, 1e30):
        figure = Figure([Series("a", [0, 1], [1.0, high])], y=Axis("y", log=True, unit="x"))
        labels = [text for text in texts(parsed(figure)) if text.endswith("x")]
        assert 2 <= len(labels) <= 12
        assert len(labels) == len(set(labels))


def test_figures_are_written_as_plotly_writes_them():
    found = json.loads(FIGURE.to_json())
    assert found["data"][0]["y"] == [1.0, None, 1.23456]
    assert found["data"][0]["error_y"]["array"] == [0.1, 0.2, 0.3]
    assert found["layout"]["yaxis"] == {"title": {"text": "times dense"}, "type": "log"}
    again = Figure.from_json(FIGURE.to_json())
    assert (again.title, again.x.title, again.y.log) == ("What it costs", "MB", True)
    assert again.to_json() == Figure.from_json(again.to_json()).to_json()
    assert [series.mode for series in again.series] == ["line and points", "points"]
    numbers = Figure([Series("a", np.arange(2), np.array([1.0, np.nan]))]).to_json()
    assert json.loads(numbers)["data"][0]["y"] == [1.0, None]


def test_arrays_that_plotly_packs_are_read():
    packed = {"dtype": "f8", "bdata": "AAAAAAAA8D8AAAAAAAAAQA=="}
    text = json.dumps({"data": [{"x": ["a", "b"], "y": packed}], "layout": {"title": "t"}})
    (series,) = Figure.from_json(text).series
    assert list(series.y) == [1.0, 2.0]


def test_every_series_has_a_colour_in_both_schemes():
    assert len(PALETTE["light"]) == len(PALETTE["dark"])
    assert palette("dark").startswith("--series-0: #")
