"""`thresher prune` stopped at any step: the same command again goes on, and ends the same."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from model_folders import save_folder, tiny_llama
from stopping import stop

import thresher.workflow as workflow
from thresher.cli import main
from thresher.core.output import Output
from thresher.prune.cuts import Cut
from thresher.prune.disk import DiskRun
from thresher.run.files.writer import CheckpointWriter
from thresher.stream.state import RunState


def prune(source: Path, out: Path, book: Path, *more: str) -> int:
    arguments = [
        *("prune", str(source), "--out", str(out), "--calibration", str(book)),
        *("--windows", "3", "--length", "32", "--density", "0.5", "--method", "wanda", *more),
    ]
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save_folder(tiny_llama(layers=2), tmp_path_factory.mktemp("interrupted") / "model")


@pytest.fixture(scope="module")
def whole(source, book, tmp_path_factory):
    """What a run that nobody stops writes."""
    out = tmp_path_factory.mktemp("interrupted") / "out"
    assert prune(source, out, book) == 0
    return contents(out)


@pytest.fixture(scope="module")
def whole_with_curve(source, book, tmp_path_factory):
    out = tmp_path_factory.mktemp("interrupted") / "out"
    assert prune(source, out, book, "--curve") == 0
    return contents(out)


def contents(folder: Path) -> dict[str, object]:
    """Return what a folder holds, but for what differs from run to run."""
    found: dict[str, object] = {}
    for file in sorted(folder.iterdir()):
        found[file.name] = file.read_bytes() if file.name != "report.html" else True
        if file.name == "thresher.json":
            record = json.loads(file.read_text())
            for key in ("timings", "peak_bytes"):
                record.pop(key)
            record["made"].pop("command")  # which names the folder
            for layer in record["layers"]:
                layer.pop("seconds")
            found[file.name] = record
    return found


STEPS = [
    *((RunState, "save", call) for call in (1, 2, 4)),
    *((CheckpointWriter, "add", call) for call in (1, 3)),
    (CheckpointWriter, "finish", 1),
    (Output, "restart", 1),
    (Output, "publish", 1),
    (Output, "close", 1),
    (workflow, "compare", 1),
    (workflow, "write_pages", 1),
    *((os, "replace", call) for call in (3, 10)),
    (os, "rename", 1),
]
CURVE_STEPS = [(workflow, "perplexity", 1), (workflow, "perplexity", 3)]


@pytest.mark.parametrize(
    ("step", "after"),
    [*((step, False) for step in STEPS), *((step, True) for step in STEPS[::2])],
    ids=lambda s: ("after" if s else "before") if isinstance(s, bool) else f"{s[1]}-{s[2]}",
)
def test_the_same_command_again_goes_on(step, after, source, whole, book, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, *step, after)
        assert prune(source, tmp_path / "out", book) == 130
    assert prune(source, tmp_path / "out", book) == 0
    assert contents(tmp_path / "out") == whole
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("step", CURVE_STEPS, ids=lambda s: f"{s[0].__name__}.{s[1]}-{s[2]}")
def test_the_curve_goes_on_too(step, source, whole_with_curve, book, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, *step, after=False)
        assert prune(source, tmp_path / "out", book, "--curve") == 130
    with pytest.MonkeyPatch.context() as patch:
        # What it has got already is not made again.
        stop(patch, DiskRun, "_prune", 1, after=False)
        stop(patch, workflow, "perplexity", 7 - step[2], after=False)
        assert prune(source, tmp_path / "out", book, "--curve") == 0
    assert contents(tmp_path / "out") == whole_with_curve
    assert os.listdir(tmp_path) == ["out"]


def test_a_curve_that_is_asked_for_later(source, whole_with_curve, book, tmp_path):
    assert prune(source, tmp_path / "out", book) == 0
    assert prune(source, tmp_path / "out", book, "--curve") == 0
    assert contents(tmp_path / "out") == whole_with_curve
    assert os.listdir(tmp_path) == ["out"]


def test_the_other_cuts_are_those_of_the_same_moments(source, book, tmp_path):
    """In a model of one block they are what runs of their own would give."""
    one = save_folder(tiny_llama(layers=1), tmp_path / "model")
    assert prune(one, tmp_path / "out", book, "--curve") == 0
    points = json.loads((tmp_path / "out" / "thresher.json").read_text())["evaluation"]["curve"]
    assert len(points) == 3
    for point in points[1:3]:
        out = tmp_path / f"own-{point['density']}"
        assert prune(one, out, book, "--density", str(point["density"])) == 0
        alone = json.loads((out / "thresher.json").read_text())["evaluation"]
        assert alone["pruned_perplexity"] == point["perplexity"]


def test_other_cuts_are_held_of_one_unit_alone(source, book, tmp_path, monkeypatch):
    held = []
    apply = Cut.apply

    def watched(cut, layers):
        names = [layer.name for layer in layers]
        held.append((sorted(cut.weights) == sorted(names), sorted(cut.masks) == sorted(names)))
        return apply(cut, layers)

    monkeypatch.setattr(Cut, "apply", watched)
    assert prune(source, tmp_path / "out", book, "--curve") == 0
    assert len(held) > 5, "one unit alone shows nothing"
    assert set(held) == {(True, True)}


def test_with_overwrite_too(source, whole, book, tmp_path):
    assert prune(source, tmp_path / "out", book, "--method", "magnitude") == 0
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, os, "rename", 1, False)
        assert prune(source, tmp_path / "out", book, "--overwrite") == 130
    # Without its old model nor its new one in place, it still has the new one.
    assert os.listdir(tmp_path) != ["out"]
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, DiskRun, "_prune", 1, False)
        assert prune(source, tmp_path / "out", book, "--overwrite") == 0
    assert contents(tmp_path / "out") == whole
    assert os.listdir(tmp_path) == ["out"]


def test_a_finished_run_is_not_done_again(source, whole, book, tmp_path, monkeypatch):
    assert prune(source, tmp_path / "out", book) == 0
    for owner, name in ((DiskRun, "_prune"), (workflow, "compare"), (workflow, "perplexity")):
        stop(monkeypatch, owner, name, 1, False)
    assert prune(source, tmp_path / "out", book) == 0
    assert contents(tmp_path / "out") == whole


def test_another_text_is_evaluated_anew(source, book, tmp_path):
    assert prune(source, tmp_path / "out", book, "--curve") == 0
    other = tmp_path / "other.txt"
    other.write_text(book.read_text()[::-1])
    assert prune(source, tmp_path / "out", book, "--text", str(other)) == 0
    evaluation = json.loads((tmp_path / "out" / "thresher.json").read_text())["evaluation"]
    assert evaluation["text"] == str(other)
    # The curve was of the text before.
    assert "curve" not in evaluation


def test_a_model_that_was_deleted_is_made_again(source, whole, book, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, workflow, "compare", 1, False)
        assert prune(source, tmp_path / "out", book) == 130
    for file in (tmp_path / "out").iterdir():
        file.unlink()
    (tmp_path / "out").rmdir()
    assert prune(source, tmp_path / "out", book) == 0
    assert contents(tmp_path / "out") == whole


def test_time_and_memory_are_those_of_all_processes(source, book, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, RunState, "save", 2, after=True)
        assert prune(source, tmp_path / "out", book) == 130
    (file,) = tmp_path.glob(".out.*/progress.json")
    state = json.loads(file.read_text())
    assert state["timings"]["total"] > 0
    assert state["timings"]["calibration"] > 0
    state["timings"] |= {"total": 5000.0, "calibration": 3000.0}
    file.write_text(json.dumps(state | {"peak_bytes": 10**15}))
    assert prune(source, tmp_path / "out", book) == 0
    record = json.loads((tmp_path / "out" / "thresher.json").read_text())
    assert record["timings"]["total"] > 5000
    assert record["timings"]["calibration"] > 3000
    assert record["peak_bytes"] == 10**15


def test_the_source_is_never_the_output(source, book):
    before = sorted(os.listdir(source.parent))
    assert prune(source, source, book, "--overwrite") == 1
    assert prune(source, source.parent, book, "--overwrite") == 1
    assert prune(source, source / "pruned", book) == 1
    assert sorted(os.listdir(source.parent)) == before
    assert (source / "model.safetensors").is_file()


def test_names_that_look_like_markup(book, tmp_path):
    place = tmp_path / "a[/x]" / "[bold]b"
    place.mkdir(parents=True)
    source = save_folder(tiny_llama(layers=1), place / "model[/]")
    assert prune(source, place / "out[/y]", book) == 0
    out = str(place / "out[/y]")
    for arguments in (
        *(["info", out], ["report", out], ["export", out, str(place / "plain[/z]")]),
        ["eval", out, "--text", str(book), "--length", "32", "--windows", "1"],
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output


def test_a_curve_of_another_text_is_drawn_anew(source, book, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(book.read_text()[::-1])
    found = []
    for more in ((), ("--text", str(other))):
        assert prune(source, tmp_path / "out", book, "--curve", "--no-evaluate", *more) == 0
        record = json.loads((tmp_path / "out" / "thresher.json").read_text())
        found.append([point["perplexity"] for point in record["evaluation"]["curve"]])
    assert [len(points) for points in found] == [3, 3]
    assert not set(found[0]) & set(found[1])
