"""What the report says, and what it says when pieces are missing."""

import math
import re
from html.parser import HTMLParser

import pytest

from thresher.core.errors import CheckpointError
from thresher.prune.record import PruneRecord
from thresher.report.html import render, write_report

SECTIONS = ("good", "smaller", "faster", "hurt", "next", "made")
_VOID = {"meta", "link", "br", "hr", "img", "input"}


class Structure(HTMLParser):
    """Collects tags, attributes and visible text, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag != "code":
            self.text.append(" ")

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    def named(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def visible(record: PruneRecord) -> str:
    text = "".join(Structure(render(record)).text)
    return " ".join(text.replace("\xa0", " ").split())


def test_it_is_well_formed_accessible_and_makes_no_request(record):
    page = Structure(render(record))
    assert page.open == []
    assert len(page.named("h1")) == 1
    assert len(page.named("caption")) == len(page.named("table"))
    assert all(chart["aria-label"] for chart in page.named("svg"))
    assert len(page.named("svg")) == len(page.named("figure")) == 1 + 1 + 7
    assert page.named("script") == []
    assert not re.search(r"(src|href)=.?(https?:|//)", render(record))
    assert [link["href"] for link in page.named("link")] == ["data:,"]
    (policy,) = [meta for meta in page.named("meta") if "http-equiv" in meta]
    assert policy["content"].startswith("default-src 'none';")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_headline_says_what_was_pruned_and_what_it_cost(record):
    text = visible(record)
    assert "tiny-llama: 50.44 % of the weights kept by wanda" in text
    assert "50.44 % (50 % was asked)" in text
    assert "Perplexity rose from 20 to 45 (2.25x)" in text
    assert "On disk the weights went from 269.0 MB to 185.0 MB (0.688x), the pruned layers" in text
    assert "55 % of the most likely next tokens agree" in text


def test_a_costly_cut_is_warned_of_with_what_smaller_ones_cost(record):
    text = visible(record)
    assert "Warning. This cut is costly: the pruned model's perplexity is 2.25x" in text
    assert "20 % removed: 21.5 (1.07x)" in text
    assert "The largest cut measured within 1.2x is 30 %." in text
    assert "60 % removed: 130" not in text


def test_a_cheap_cut_is_not_warned_of(record):
    record.evaluation["pruned_perplexity"] = 24.0
    assert "Warning" not in visible(record)


def test_a_broken_model_is_called_broken(record):
    record.evaluation["pruned_perplexity"] = math.inf
    assert "not a finite number" in visible(record)
    record.evaluation["pruned_perplexity"] = math.nan
    assert "not a finite number" in visible(record)


def test_a_curve_that_explodes_is_drawn_all_the_same(pictures, record):
    record.evaluation["curve"][-2:] = [
        {"density": 0.5, "perplexity": 1e304, "method": "wanda"},
        {"density": 0.4, "perplexity": math.inf, "method": "wanda"},
    ]
    page = render(record)
    assert "<td>1e+304</td>" in page
    assert "wanda" in page[page.index("<svg") : page.index("</svg>")]


def test_no_smaller_cut_is_good_enough(record):
    record.evaluation["curve"] = [{"density": 0.9, "perplexity": 30.0, "method": "magnitude"}]
    text = visible(record)
    assert "Smaller cuts cost (by magnitude): 10 % removed: 30 (1.5x)" in text
    assert "No cut measured stays within 1.2x." in text


def test_the_ten_largest_losses_are_listed_in_order(record):
    page = render(record)
    table = page[page.index("<h3>Largest losses") : page.index("<summary>Weights before")]
    names = re.findall(r'<th scope="row">([^<]*)</th>', table)
    expected = sorted(record.layers, key=lambda layer: -layer.error)[:10]
    assert names == [layer.name for layer in expected]


def test_recipe_calibration_versions_and_memory_are_exact(record):
    text = visible(record)
    assert "Wanda(pattern=Unstructured(per='row'), density=0.5)" in text
    assert "source: Python's documentation, windows: 64, length: 1024" in text
    assert "thresher 0.1.0, torch 2.13.0" in text
    assert "Peak resident memory of the process was 1.8 GB" in text


def test_a_total_is_not_added_to_its_phases(record):
    record.timings["total"] = 25.0
    text = visible(record)
    assert "Time by phase, 25 s in all." in text
    assert "loading, writing and the rest 5 s 20 %" in text


def test_without_evaluation_it_says_how_to_get_one(record):
    record.evaluation = {}
    text = visible(record)
    assert "thresher eval FOLDER --text FILE --dense MODEL --save" in text
    assert "eval FOLDER --text FILE --dense models/tiny-llama --save" in text
    assert "Warning" not in text


def test_without_a_curve_it_says_how_to_get_one(record):
    del record.evaluation["curve"]
    assert visible(record).count("thresher prune --curve") == 2


def test_the_questions_come_in_a_buyers_order(record):
    sample = {"prompt": "To be", "text": " or not", "dense": " or <b>", "pruned": " be be"}
    record.evaluation["samples"] = [sample]
    page = Structure(render(record, "small"))
    assert [h["id"] for h in page.named("h2")] == list(SECTIONS)
    assert [a["href"] for a in page.named("a")][:3] == ["#good", "#smaller", "#faster"]
    text = " ".join("".join(page.text).split())
    assert "To be dense or <b> pruned be be the text itself or not" in text
    assert "thresher bench small --dense models/tiny-llama --save" in text


@pytest.mark.parametrize(
    "key",
    [
        "text",
        "windows",
        "dense_perplexity",
        "pruned_perplexity",
        "kl",
        "js",
        "dense_bytes",
        "curve",
    ],
)
def test_every_piece_of_the_evaluation_may_be_missing(record, key):
    del record.evaluation[key]
    assert Structure(render(record)).open == []


@pytest.mark.parametrize("error", [0.0, 1e-300, math.inf, math.nan])
@pytest.mark.parametrize("where", ["one", "all"])
def test_whatever_was_measured_is_rendered(record, error, where):
    """A report that fails comes after hours of work."""
    for layer in record.layers[: 1 if where == "one" else None]:
        layer.error, layer.kept, layer.histogram = error, 0, {}
    perplexity = {0.0: 1.0, 1e-300: 1e300}.get(error, error)
    record.evaluation |= {"pruned_perplexity": perplexity, "pruned_losses": [error, error]}
    record.evaluation |= {"dense_losses": [3.0, 3.0], "dense_perplexity": 20.0}
    record.evaluation["curve"][0]["perplexity"] = perplexity
    assert Structure(render(record)).open == []


def test_an_empty_record_still_renders():
    text = visible(PruneRecord("model", "magnitude", "recipe", "unstructured", 0.5))
    assert "The record lists no layer." in text
    assert "not recorded" in text


def test_text_of_the_user_is_escaped(record):
    evil = "</script><script>alert(1)</script><b>x</b>"
    record.model = record.recipe = record.evaluation["text"] = evil
    record.calibration = {"source": evil}
    record.evaluation["curve"][0]["method"] = evil
    for layer in record.layers:
        layer.name = f"layers.{evil.replace('.', '')}"
    record.made = {"command": evil, "processor": evil}
    record.evaluation["samples"] = [dict.fromkeys(("prompt", "text", "dense", "pruned"), evil)]
    record.tasks = {"pruned": {evil: {evil: 0.5}}}
    page = render(record, evil)
    assert "alert(1)</script>" not in page
    assert "<b>x" not in page
    assert Structure(page).open == []


def test_it_is_written_whole_or_not_at_all(record, tmp_path):
    path = tmp_path / "report.html"
    write_report(record, path)
    assert path.read_text(encoding="utf-8") == render(record)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(CheckpointError, match=r"no folder '.*missing'; make it first"):
        write_report(record, tmp_path / "missing" / "report.html")
    with pytest.raises(CheckpointError, match="it is a folder; name a file in it"):
        write_report(record, tmp_path)


def test_a_record_that_was_saved_gives_the_same_report(record):
    assert render(PruneRecord.from_json(record.to_json())) == render(record)
