"""`thresher compare`: the table, how it goes on, what fails alone, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import warm
from click.testing import CliRunner
from model_folders import save_folder, tiny_llama
from stopping import stop

import thresher as th
from thresher import comparing, comparing_cell, comparing_plan, comparing_processes
from thresher.cli import main
from thresher.comparing_plan import fingerprint_of
from thresher.core.errors import OptionError
from thresher.prune.comparison import Cell, cells_of
from thresher.run.evaluate import perplexity
from thresher.run.pack import choose_layouts
from thresher.stream.outputs import folder_logits

TIMES = ("seconds", "peak_bytes", "packed_bytes", "tokens_per_second", "speedup", "noisy")
MORE_TIMES = ("speedup_least", "speedup_most", "layouts", "dtype")


def _model():
    # Of larger weights, so that other tokens become the likeliest when some are removed.
    return tiny_llama(layers=2, initializer_range=0.2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save_folder(_model(), tmp_path_factory.mktemp("compare") / "model")


@pytest.fixture(scope="module")
def other(book):
    file = book.with_name("other.txt")
    file.write_text(book.read_text()[::-1])
    return file


def timed_briefly(patch):
    """Choose between two layouts by one product each, and generate two tokens."""
    brief = functools.partial(choose_layouts, candidates=["bitmask"], repeats=1)
    patch.setattr(comparing_cell, "choose_layouts", brief)
    patch.setattr(comparing_cell, "_NEW_TOKENS", 2)


@pytest.fixture
def in_process(monkeypatch):
    """Do the steps in this process, which takes no time to start; return what was done."""
    done = []

    def run(command, show):
        work, name, step = command[-3:]
        done.append((name, step))
        comparing_cell.run_cell(Path(work), name, step)
        return 0

    monkeypatch.setattr(comparing_processes, "_run", run)
    timed_briefly(monkeypatch)
    return done


def arguments(source, book, other, out, methods="wanda,magnitude", density="0.5,0.7"):
    return [
        *("compare", str(source), "--methods", methods, "--density", density),
        *("--calibration", str(book), "--other-text", str(other)),
        *("--windows", "3", "--length", "32", "--out", str(out)),
    ]


def type_in(arguments, code=0):
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def rows_of(out, but=()):
    found = json.loads((out / "comparison.json").read_text())["rows"]
    return {row["name"]: {k: v for k, v in row.items() if k not in but} for row in found}


NAMES = ["dense", "wanda-0.5", "wanda-0.7", "magnitude-0.5", "magnitude-0.7"]


def test_the_table(source, book, other, tmp_path, in_process, monkeypatch):
    output = type_in(arguments(source, book, other, tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    assert list(rows) == NAMES
    assert in_process == [(name, step) for step in ("make", "time") for name in NAMES]
    for name, row in rows.items():
        assert not row["error"]
        assert not row["missing"]
        assert row["perplexity"] > 1
        assert row["other_perplexity"] > 1
        assert row["perplexity"] != row["other_perplexity"]
        assert row["tokens_per_second"] > 0
        dense = name == "dense"
        assert (row["kl"] == 0) == dense
        assert (row["top1_agreement"] == 1) == dense
        assert (row["seconds"] is None) == (row["peak_bytes"] is None) == dense
        assert row["density"] == pytest.approx(row["density_asked"], abs=0.01)
    assert rows["wanda-0.5"]["stored_bytes"] < rows["wanda-0.7"]["stored_bytes"]
    assert rows["wanda-0.7"]["stored_bytes"] < rows["dense"]["stored_bytes"]
    assert rows["wanda-0.5"]["kl"] > rows["wanda-0.7"]["kl"]
    assert "wanda 50 %" in output
    assert os.listdir(tmp_path) == ["out"]
    # The models are there, and what is said of them is so.
    folder = tmp_path / "out" / "models" / "wanda-0.5"
    windows = th_windows(source, book)
    assert perplexity(folder_logits(folder, windows), windows) == rows["wanda-0.5"]["perplexity"]
    evaluation = json.loads((folder / "thresher.json").read_text())["evaluation"]
    assert evaluation["pruned_perplexity"] == rows["wanda-0.5"]["perplexity"]
    assert evaluation["dense_perplexity"] == rows["dense"]["perplexity"]
    report = (tmp_path / "out" / "report.html").read_text()
    assert all(f">{row['method']}" in report for row in rows.values())
    assert "<svg" in (folder / "report.html").read_text()


def th_windows(source, book):
    """Return the windows after the three that models are calibrated on."""
    from thresher.parts.calibration import token_windows
    from thresher.workflow import load_tokenizer

    return token_windows(load_tokenizer(source), book.read_text(), length=32, count=19)[3:]


def test_a_finished_comparison_grows(source, book, other, tmp_path, in_process):
    given = (source, book, other, tmp_path / "out")
    type_in(arguments(*given, "wanda", "0.5"))
    before = rows_of(tmp_path / "out")
    in_process.clear()
    type_in(arguments(*given, "wanda", "0.5"))
    assert in_process == []
    type_in(arguments(*given, "magnitude", "0.5"))
    assert in_process == [("magnitude-0.5", "make"), ("magnitude-0.5", "time")]
    after = rows_of(tmp_path / "out")
    assert list(after) == ["dense", "wanda-0.5", "magnitude-0.5"]
    assert before.items() <= after.items()
    assert os.listdir(tmp_path) == ["out"]


STEPS = [
    (comparing_cell, "prune_folder", 2),
    (comparing_cell, "compare", 1),
    *((comparing_cell, "save_row", call) for call in (1, 5)),
    (comparing_cell, "choose_layouts", 1),
    (comparing, "write_comparison", 1),
    (comparing.Output, "publish", 1),
    (comparing.Output, "close", 1),
    *((os, "rename", call) for call in (2, 4)),
]


@pytest.fixture(scope="module")
def whole(source, book, other, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing_processes, "_run", lambda command, show: run_here(command))
        timed_briefly(patch)
        type_in(arguments(source, book, other, out, density="0.5"))
    return rows_of(out, TIMES + MORE_TIMES)


def run_here(command):
    comparing_cell.run_cell(Path(command[-3]), *command[-2:])
    return 0


@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s[0].__name__}.{s[1]}-{s[2]}")
def test_the_same_command_again_goes_on(
    step, source, book, other, whole, tmp_path, in_process, monkeypatch
):
    owner, name, call = step
    given = arguments(source, book, other, tmp_path / "out", density="0.5")
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, owner, name, call)
        type_in(given, code=130)
    first = [each for each in in_process if each[1] == "make"]
    type_in(given)
    assert rows_of(tmp_path / "out", TIMES + MORE_TIMES) == whole
    assert os.listdir(tmp_path) == ["out"]
    assert sorted(os.listdir(tmp_path / "out")) == ["comparison.json", "models", "report.html"]
    assert sorted(os.listdir(tmp_path / "out" / "models")) == ["magnitude-0.5", "wanda-0.5"]
    # What had been made is not made again: one step was stopped, and is done twice at most.
    made = [each for each in in_process if each[1] == "make"]
    assert len(made) <= 3 + 1, (first, made)


def test_after_kill_9_too(source, book, other, whole, tmp_path, monkeypatch):
    """With processes of their own, which end with the one that started them."""
    monkeypatch.setattr(comparing_processes, "_run", run_warm)
    timed_briefly(monkeypatch)
    given = arguments(source, book, other, tmp_path / "out", "wanda", "0.5")
    command = [sys.executable, "-m", "thresher", *given]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    work = wait_for(lambda: next(tmp_path.glob(".out.*.thresher"), None), first)
    wait_for(lambda: (work / "pruned" / "wanda-0.5").parent.exists(), first)
    children = children_of(first.pid)
    assert children
    first.kill()
    first.wait()
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    type_in(given)
    found = rows_of(tmp_path / "out")
    assert list(found) == ["dense", "wanda-0.5"]
    assert rows_of(tmp_path / "out", TIMES + MORE_TIMES).items() <= whole.items()
    # Of their own processes, not of this one.
    assert all(row["peak_bytes"] > 1e7 for name, row in found.items() if name != "dense")
    assert os.listdir(tmp_path) == ["out"]


def run_warm(command, show):
    """Make models in processes of their own, which are quick to start; time them in this one."""
    return run_here(command) if command[-1] == "time" else warm.run(*command[1:]).returncode


def children_of(parent):
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in found]


def wait_for(condition, process=None, seconds=400):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        assert process is None or process.poll() is None
        time.sleep(0.01)
    return found


def test_a_model_that_fails_is_a_row(source, book, other, tmp_path, in_process, monkeypatch):
    real = comparing_cell.prune_folder

    def failing(folder, out, recipe, *args, **keywords):
        if "Wanda" in repr(recipe):
            raise RuntimeError("a first line\nand a second")
        return real(folder, out, recipe, *args, **keywords)

    given = arguments(source, book, other, tmp_path / "out", density="0.5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing_cell, "prune_folder", failing)
        output = type_in(given)
    rows = rows_of(tmp_path / "out")
    assert rows["wanda-0.5"]["error"] == "RuntimeError: a first line"
    assert rows["wanda-0.5"]["perplexity"] is None
    assert rows["magnitude-0.5"]["perplexity"] > 1
    said = "wanda-0.5 failed: RuntimeError: a first line"
    assert said in output
    assert said in (tmp_path / "out" / "report.html").read_text()
    in_process.clear()
    # It is tried again, and nothing else is.
    type_in(given)
    assert in_process == [("wanda-0.5", "make"), ("wanda-0.5", "time")]
    assert not rows_of(tmp_path / "out")["wanda-0.5"]["error"]


def test_a_model_that_could_not_be_evaluated_is_tried_again(
    source, book, other, tmp_path, in_process, monkeypatch
):
    real = comparing_cell.read_record

    def failing(folder):
        if folder.name == "wanda-0.5":
            raise RuntimeError("no record")
        return real(folder)

    given = arguments(source, book, other, tmp_path / "out", density="0.5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing_cell, "read_record", failing)
        type_in(given)
    assert rows_of(tmp_path / "out")["wanda-0.5"]["error"] == "RuntimeError: no record"
    # Its folder was made, and stands.
    assert (tmp_path / "out" / "models" / "wanda-0.5").is_dir()
    type_in(given)
    row = rows_of(tmp_path / "out")["wanda-0.5"]
    assert not row["error"]
    assert row["perplexity"] > 1


def test_a_model_whose_folder_was_deleted_is_made_again(source, book, other, tmp_path, in_process):
    given = arguments(source, book, other, tmp_path / "out", "wanda", "0.5")
    type_in(given)
    before = rows_of(tmp_path / "out", TIMES + MORE_TIMES)
    shutil.rmtree(tmp_path / "out" / "models" / "wanda-0.5")
    in_process.clear()
    type_in(given)
    assert in_process == [("wanda-0.5", "make"), ("wanda-0.5", "time")]
    assert rows_of(tmp_path / "out", TIMES + MORE_TIMES) == before
    assert (tmp_path / "out" / "models" / "wanda-0.5").is_dir()


def test_what_was_begun_and_is_no_longer_asked_for_leaves_nothing(
    source, book, other, tmp_path, in_process, monkeypatch
):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    given = (source, book, other, tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing_cell, "compare", stopped)
        type_in(arguments(*given, "wanda", "0.5"), code=130)
    type_in(arguments(*given, "magnitude", "0.5"))
    assert list(rows_of(tmp_path / "out")) == ["dense", "magnitude-0.5"]
    assert os.listdir(tmp_path / "out" / "models") == ["magnitude-0.5"]
    type_in(arguments(*given, "wanda", "0.5"))
    assert not rows_of(tmp_path / "out")["wanda-0.5"]["error"]


def test_a_process_that_is_killed_is_a_row(source, book, other, tmp_path, in_process, monkeypatch):
    real = comparing_processes._run

    def killed(command, show):
        return -signal.SIGKILL if command[-2:] == ["wanda-0.5", "make"] else real(command, show)

    monkeypatch.setattr(comparing_processes, "_run", killed)
    type_in(arguments(source, book, other, tmp_path / "out", density="0.5"))
    assert "killed by signal 9" in rows_of(tmp_path / "out")["wanda-0.5"]["error"]


def test_only_when_all_fail_is_it_an_error(source, book, other, tmp_path, in_process):
    # Three does not divide the inputs of a layer.
    given = arguments(source, book, other, tmp_path / "out", "wanda", "")
    given[given.index("--density") : given.index("--density") + 2] = ["--pattern", "1:3"]
    output = type_in(given, code=1)
    assert "no model could be made; wanda-1of3 failed with:" in output
    assert not (tmp_path / "out").exists()


def test_healing(source, book, other, tmp_path, in_process, monkeypatch):
    # Every look at the clock takes a second.
    looks = iter(range(10**9))
    kind = comparing_cell.HealOptions
    clocked = lambda *args: kind(*args, clock=lambda: float(next(looks)))  # noqa: E731
    monkeypatch.setattr(comparing_cell, "HealOptions", clocked)
    read = []
    real = comparing_cell.as_samples

    def reading(model, windows):
        read.extend(map(tuple, windows.tolist()))
        return real(model, windows)

    monkeypatch.setattr(comparing_cell, "as_samples", reading)
    given = arguments(source, book, other, tmp_path / "out", "magnitude,structured", "0.5")
    type_in([*given, "--heal", "1"])
    # What is smaller is healed as it is.
    smaller = tmp_path / "out" / "models" / "structured-0.5" / "thresher.json"
    assert json.loads(smaller.read_text())["healing"]["steps"] > 0
    folder = tmp_path / "out" / "models" / "magnitude-0.5"
    record = json.loads((folder / "thresher.json").read_text())
    assert record["healing"]["minutes"] == 1
    assert (
        record["evaluation"]["pruned_perplexity"]
        == rows_of(tmp_path / "out")["magnitude-0.5"]["perplexity"]
    )
    assert len(read) > 19
    # What models are evaluated on is not trained on.
    assert not set(read) & set(map(tuple, th_windows(source, book).tolist()))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--methods", "wandaa"), "did you mean 'wanda'?"),
        (("--methods", ""), "no method is named"),
        (("--methods", "s4"), "does not prune a trained model"),
        (("--pattern", "blok"), "there is no pattern 'blok'"),
        (("--pattern", "5:4"), "N must be at least 1"),
        (("--density", "", "--pattern", "16x16"), "says not how much to keep"),
        (("--density", ""), "say how much to keep"),
        (("--heal", "0"), "heal must be a finite number above 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(more, message, source, book, other, tmp_path):
    given = arguments(source, book, other, tmp_path / "out")
    assert message in type_in([*given, *more], code=1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("density", ["0", "1.5", "0.5,-1", "half", "0.5,"])
def test_densities_out_of_range(density, source, book, other, tmp_path):
    output = type_in(arguments(source, book, other, tmp_path / "out", density=density), code=2)
    assert "Invalid value for '--density'" in output


def test_texts_that_cannot_be_used(source, book, other, tmp_path):
    given = (source, book, other, tmp_path / "out")
    assert "begins as the calibration text does" in type_in(
        arguments(source, book, book, given[3]), code=1
    )
    short = tmp_path / "short.txt"
    short.write_text("Forty characters are no two windows.")
    given = arguments(source, short, other, tmp_path / "out")
    assert "none is left to evaluate on" in type_in(given, code=1)
    given = arguments(source, book, tmp_path / "none", tmp_path / "out")
    assert "does not exist" in type_in(given, code=1)
    assert os.listdir(tmp_path) == ["short.txt"]


def test_a_folder_of_something_else_is_left_alone(source, book, other, tmp_path, in_process):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("mine")
    given = arguments(source, book, other, tmp_path / "out", "wanda", "0.5")
    assert "exists; choose another" in type_in(given, code=1)
    assert "lie in one another" in type_in([*given, "--out", source / "out"], code=1)
    type_in([*given, "--out", tmp_path / "ours"])
    refused = type_in([*given, "--out", tmp_path / "ours", "--windows", "2"], code=1)
    assert "holds a comparison of another model, text, options" in refused
    assert os.listdir(tmp_path / "out") == ["file"]


def test_an_unfinished_comparison_of_another_text_is_left_alone(
    source, book, other, tmp_path, in_process, monkeypatch
):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    given = arguments(source, book, other, tmp_path / "out", "wanda", "0.5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing_cell, "prune_folder", stopped)
        type_in(given, code=130)
    refused = type_in([*given, "--windows", "2"], code=1)
    assert "unfinished comparison of another model, text" in refused
    type_in(given)


def test_without_another_text_the_column_is_left_out(
    source, book, tmp_path, in_process, monkeypatch
):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    given = arguments(source, book, "", tmp_path / "out", "wanda", "0.5")
    at = given.index("--other-text")
    output = type_in(given[:at] + given[at + 2 :])
    assert "No other text: no second text is at hand" in output
    assert rows_of(tmp_path / "out")["wanda-0.5"]["other_perplexity"] is None


def test_tasks_are_a_column(source, book, other, tmp_path, in_process):
    questions = tmp_path / "questions.jsonl"
    asked = {"question": "The capital of France is", "choices": ["Paris", "Rome"], "answer": 0}
    questions.write_text(json.dumps(asked))
    given = arguments(source, book, other, tmp_path / "out", "wanda", "0.5")
    output = type_in([*given, "--tasks", questions])
    for row in rows_of(tmp_path / "out").values():
        assert row["tasks"]["questions"]["questions"] == 1
        assert row["tasks"]["questions"]["accuracy"] in (0, 1)
    assert "questions" in output
    questions.write_text(json.dumps(asked | {"answer": 1}))
    refused = type_in([*given, "--tasks", questions], code=1)
    assert "holds a comparison of another model, text, options" in refused
    questions.write_text("{}")
    assert "question" in type_in([*given, "--tasks", questions], code=1)


def test_files_of_tasks_are_found_from_a_folder_with_a_comma(
    source, book, other, tmp_path, in_process, monkeypatch
):
    place = tmp_path / "mine, yours"
    place.mkdir()
    for name in ("first", "second"):
        asked = {"question": f"The {name} is", "choices": ["it", "not it"], "answer": 0}
        (place / f"{name}.jsonl").write_text(json.dumps(asked))
    monkeypatch.chdir(place)
    given = arguments(source, book, other, tmp_path / "out", "wanda", "0.5")
    type_in([*given, "--tasks", "first.jsonl, second.jsonl"])
    for row in rows_of(tmp_path / "out").values():
        assert list(row["tasks"]) == ["first", "second"]
    # What they ask is among what the rows have in common.
    (place / "second.jsonl").write_text(json.dumps(asked | {"answer": 1}))
    refused = type_in([*given, "--tasks", "first.jsonl,second.jsonl"], code=1)
    assert "holds a comparison of another model, text, options" in refused


def test_a_model_without_room_for_text_has_no_speed(
    source, book, other, tmp_path, in_process, monkeypatch
):
    monkeypatch.setattr(comparing_cell, "_NEW_TOKENS", 1000)
    type_in(arguments(source, book, other, tmp_path / "out", "wanda", "0.5"))
    rows = rows_of(tmp_path / "out")
    assert "positions" in rows["wanda-0.5"]["missing"]["tokens_per_second"]
    assert rows["wanda-0.5"]["perplexity"] > 1
    assert in_process[-1] == ("dense", "time")


def test_a_timing_that_failed_is_tried_again(
    source, book, other, tmp_path, in_process, monkeypatch
):
    def failing(*_, **__):
        raise MemoryError("no room")

    given = arguments(source, book, other, tmp_path / "out", "wanda", "0.5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing_cell, "choose_layouts", failing)
        assert "No tokens/s of wanda-0.5: MemoryError: no room" in type_in(given)
    in_process.clear()
    output = type_in(given)
    assert in_process == [("wanda-0.5", "time")]
    row = rows_of(tmp_path / "out")["wanda-0.5"]
    assert row["speedup"] > 0
    assert not row["missing"]
    assert "No tokens/s" not in output


def test_a_model_with_packed_layers_is_timed_beside_the_dense_one(
    source, book, other, tmp_path, in_process, monkeypatch
):
    choose = comparing_cell.choose_layouts
    monkeypatch.setattr(
        comparing_cell,
        "choose_layouts",
        lambda model, batch: choose(model, batch, candidates="bitmask", repeats=1, gain=0),
    )
    measure = comparing_cell.bench
    monkeypatch.setattr(
        comparing_cell,
        "bench",
        lambda *models, **options: dataclasses.replace(measure(*models, **options), noisy=True),
    )
    type_in(arguments(source, book, other, tmp_path / "out", "wanda", "0.5"))
    row = rows_of(tmp_path / "out")["wanda-0.5"]
    assert row["noisy"]
    assert row["layouts"] == "14 bitmask"
    assert row["dtype"] == "bfloat16"
    least, speedup, most = (row[f"speedup{end}"] for end in ("_least", "", "_most"))
    # Of tokens a second and of seconds, which are rounded apart.
    assert least * (1 - 1e-12) <= speedup <= most * (1 + 1e-12)


def test_smaller_models_are_compared(source, book, other, tmp_path, in_process):
    out = tmp_path / "out"
    output = type_in(arguments(source, book, other, out, "structured,flap,magnitude", "0.7"))
    rows = rows_of(out)
    assert list(rows) == ["dense", "structured-0.7", "flap-0.7", "magnitude-0.7"]
    # Each of its blocks has a width of its own.
    assert not rows["flap-0.7"]["error"]
    assert rows["flap-0.7"]["speedup"] > 0
    assert rows["flap-0.7"]["stored_bytes"] < rows["dense"]["stored_bytes"]
    row, dense = rows["structured-0.7"], rows["dense"]
    assert not row["error"]
    assert (row["pattern"], row["layouts"], row["dtype"]) == ("units", "dense", dense["dtype"])
    assert 0.5 < row["density"] < 0.9
    for size in ("stored_bytes", "packed_bytes"):
        assert row[size] < dense[size]
    assert row["kl"] > 0
    # Timed as itself, and not as the dense model whose layers it has in other shapes.
    assert row["tokens_per_second"] not in (None, dense["tokens_per_second"])
    assert row["peak_bytes"] > 0
    assert "structured" in output
    folder = out / "models" / "structured-0.7"
    assert (folder / "report.html").is_file()
    assert json.loads((folder / "config.json").read_text())["intermediate_size"] < 64


def test_models_without_experts_are_compared(source, book, other, tmp_path, in_process):
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = {"num_local_experts": 4, "intermediate_size": 32, "initializer_range": 0.2}
    config |= {name: getattr(_model().config, name) for name in ("vocab_size", "hidden_size")}
    config |= {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    mixture = save_folder(MixtralForCausalLM(MixtralConfig(**config)), tmp_path / "mixture")
    methods = "task-experts,stun"
    type_in(arguments(mixture, book, other, tmp_path / "out", methods, "0.6"))
    rows = rows_of(tmp_path / "out")
    for name in ("task-experts-0.6", "stun-0.6"):
        assert not rows[name]["error"]
        assert rows[name]["pattern"] == "experts"
        assert 0.4 < rows[name]["density"] < 0.8
        assert rows[name]["stored_bytes"] < rows["dense"]["stored_bytes"]
    # Of a model that has none it is said alone, beside the methods that it takes.
    type_in(arguments(source, book, other, tmp_path / "none", "task-experts,magnitude", "0.6"))
    rows = rows_of(tmp_path / "none")
    assert "has no mixture of experts" in rows["task-experts-0.6"]["error"]
    assert rows["magnitude-0.6"]["perplexity"] > 1


@pytest.mark.parametrize(
    ("method", "pattern", "message"),
    [
        ("task-experts", "2:4", "removes whole experts, and has no pattern '2:4'"),
        ("structured", "2:4", "'structured' removes whole units, and has no pattern '2:4'"),
    ],
)
def test_units_that_cannot_be_compared_are_named(method, pattern, message):
    with pytest.raises(OptionError, match=message):
        Cell(method, 0.8, pattern)


def test_units_are_compared_at_densities_alone():
    cells = cells_of(["structured", "wanda"], [0.8], ["2:4"])
    assert [cell.name for cell in cells] == ["structured-0.8", "wanda-0.8", "wanda-2of4"]
    with pytest.raises(OptionError, match="density"):
        cells_of(["structured"], [], ["2:4"])


def test_in_python(source, book, other, tmp_path, in_process):
    found = th.compare_methods(
        source,
        "wanda",
        tmp_path / "out",
        pattern="2:4",
        calibration=book,
        other_text=other,
        windows=3,
        length=32,
        progress=False,
    )
    assert [row.name for row in found.rows] == ["dense", "wanda-2of4"]
    assert found.records()[1] == dataclasses.asdict(found.rows[1])
    assert found.rows[1].density == 0.5
    with pytest.raises(OptionError, match="by their names"):
        th.compare_methods(source, [th.Recipe], tmp_path / "other", density=0.5)


def test_the_fingerprint_is_of_all_that_rows_have_in_common(source, tmp_path, monkeypatch):
    questions = tmp_path / "questions.jsonl"
    questions.write_text("one")
    text = torch.arange(6).view(2, 3)
    given = {"source": source, "windows": {"held_out": text}, "heal": 5.0}
    given["tasks"] = [str(questions)]
    changes = [
        {},
        {"source": save_folder(tiny_llama(layers=1), tmp_path / "other")},
        *({"windows": {"held_out": x}} for x in (text + 1, text.view(3, 2))),
        {"windows": {"other": text}},
        *({"heal": heal} for heal in (None, 6.0)),
        *({"tasks": tasks} for tasks in (None, ["arc_easy"], ["piqa"])),
    ]
    found = [fingerprint_of(**given | change) for change in changes]
    assert fingerprint_of(**given) == found[0]
    questions.write_text("two")
    found.append(fingerprint_of(**given))
    monkeypatch.setattr(comparing_plan, "versions", lambda: {"torch": "0"})
    found.append(fingerprint_of(**given))
    assert len(set(found)) == len(found)


def test_which_models_are_compared():
    cells = cells_of(["wanda", "Magnitude", "wanda"], [0.5, 0.7], ["2:4"])
    assert cells == [
        *(Cell("wanda", 0.5), Cell("wanda", 0.7), Cell("wanda", None, "2:4")),
        *(Cell("magnitude", 0.5), Cell("magnitude", 0.7), Cell("magnitude", None, "2:4")),
    ]
    # A pattern of free density takes the place of the method's own.
    cells = cells_of(["wanda"], [0.5], ["16x16", "2:4/outputs"])
    assert [cell.name for cell in cells] == ["wanda-16x16-0.5", "wanda-2of4-outputs"]


def test_a_method_that_other_processes_cannot_see_is_refused(monkeypatch):
    entry = comparing_processes.entry_of(comparing_processes.find("wanda"))
    there = dataclasses.replace(entry, module="__main__")
    monkeypatch.setattr(comparing_processes, "entry_of", lambda method: there)
    with pytest.raises(OptionError, match="other processes do not see"):
        comparing_processes.plugin_files([Cell("wanda", 0.5)])


def test_without_ray_it_says_what_to_install(source, book, other, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    given = arguments(source, book, other, tmp_path / "out")
    assert "pip install 'thresher[ray]'" in type_in([*given, "--parallel", "2"], code=1)
    assert os.listdir(tmp_path) == []


def test_shares_are_what_ray_takes():
    share = comparing_processes._share
    assert share({"CPU": 16.0, "GPU": 3.0}, 2) == {"num_cpus": 8.0, "num_gpus": 1.0}
    assert share({"CPU": 2.0}, 4) == {"num_cpus": 0.5, "num_gpus": 0.0}


def test_a_process_that_ray_ends_is_killed(monkeypatch):
    pytest.importorskip("ray")

    def dying(command, show):
        if "a" in command:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    monkeypatch.setattr(comparing_processes, "_run", dying)
    ended = {}
    comparing_processes.run_processes({"a": ["a"], "b": []}, [], 2, False, ended.__setitem__)
    assert ended == {"a": -signal.SIGKILL, "b": 0}


def test_with_ray_the_table_is_the_same(source, book, other, whole, tmp_path):
    pytest.importorskip("ray")
    given = arguments(source, book, other, tmp_path / "out", density="0.5")
    type_in([*given, "--parallel", "2"])
    assert rows_of(tmp_path / "out", TIMES + MORE_TIMES) == whole
    assert (
        "Times are of 2 models being made at a time"
        in (tmp_path / "out" / "report.html").read_text()
    )
