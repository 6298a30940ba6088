"""`thresher heal` on folders: what it writes, how it goes on, and what it refuses."""

import copy
import json
import os
import shutil

import pytest
import torch
from click.testing import CliRunner
from model_folders import byte_tokenizer, save_folder, tiny_llama
from stopping import stop
from transformers import AutoModelForCausalLM

import thresher as th
from thresher.cli import main
from thresher.core.output import Output
from thresher.prune.heal import folder, run
from thresher.prune.heal.run import Healer
from thresher.run.files.checkpoint import Checkpoint


def type_in(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def heal(sparse, book, *more, code=0):
    options = ("--text", book, "--windows", 12, "--length", 32, "--minutes", 1)
    return type_in("heal", sparse, *options, *more, code=code)


def timeless(patch):
    """Every look at the clock takes a second, and rates are those of small models."""
    looks = iter(range(10**9))
    patch.setattr(run, "_RATES", (1e-3, 1e-2, 3e-2))
    kind = folder.HealOptions
    clocked = lambda *args: kind(*args, clock=lambda: float(next(looks)))  # noqa: E731
    patch.setattr("thresher.healing.HealOptions", clocked)


@pytest.fixture(autouse=True)
def _timeless(monkeypatch):
    timeless(monkeypatch)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    place = tmp_path_factory.mktemp("heal") / "dense"
    return save_folder(tiny_llama(layers=2, initializer_range=0.2).to(torch.bfloat16), place)


@pytest.fixture(scope="module")
def sparse(dense, book, tmp_path_factory):
    out = tmp_path_factory.mktemp("heal") / "sparse"
    options = ("--method", "magnitude", "--pattern", "2:4", "--no-evaluate", "--length", 64)
    type_in("prune", dense, "--out", out, "--calibration", book, *options)
    return out


@pytest.fixture(scope="module")
def smaller(dense, book, tmp_path_factory):
    out = tmp_path_factory.mktemp("heal") / "smaller"
    options = ("--method", "structured", "--density", "0.7", "--no-evaluate", "--length", 64)
    type_in("prune", dense, "--out", out, "--calibration", book, "--windows", 8, *options)
    return out


def weights(place):
    return dict(AutoModelForCausalLM.from_pretrained(place).named_parameters())


def test_the_folder_is_healed_and_stays_as_sparse(sparse, book, tmp_path):
    output = heal(sparse, book, "--out", tmp_path / "out")
    assert "divergence from the dense model" in output
    record = json.loads((tmp_path / "out" / "thresher.json").read_text())
    healing = record["healing"]
    assert healing["loss_after"] < healing["loss_before"]
    assert healing["text"] == str(book)
    assert (healing["windows"], healing["held_out"], healing["length"]) == (9, 3, 32)
    assert "pruned_perplexity" not in record["evaluation"]
    before, after = weights(sparse), weights(tmp_path / "out")
    for name, weight in before.items():
        assert torch.equal(weight == 0, after[name] == 0), name
        assert after[name].dtype == torch.bfloat16
        assert torch.equal(weight, after[name]) == ("embed" in name), name
    checkpoints = [Checkpoint(place) for place in (sparse, tmp_path / "out")]
    assert checkpoints[0].stored.group == checkpoints[1].stored.group == 4
    for name in checkpoints[0]:
        assert checkpoints[0].stored_bytes(name) == checkpoints[1].stored_bytes(name)
    assert "│ healed" in type_in("info", tmp_path / "out")
    assert "held-out windows" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert os.listdir(tmp_path) == ["out"]
    # The very same run has ended already.
    shown = heal(sparse, book, "--out", tmp_path / "out", "--json")
    again = json.loads(shown[shown.index("{") :])
    assert {name: again[name] for name in healing} == healing
    assert again["out"] == str(tmp_path / "out")


def test_by_default_it_is_written_beside(sparse, book, tmp_path):
    place = shutil.copytree(sparse, tmp_path / "small")
    heal(place, book)
    assert sorted(os.listdir(tmp_path)) == ["small", "small-healed"]


def test_a_folder_of_another_tool_is_healed(dense, book, tmp_path):
    model = tiny_llama(layers=2, initializer_range=0.2).to(torch.bfloat16)
    th.prune(model, "magnitude", density=0.5, progress=False)
    place = save_folder(copy.deepcopy(model), tmp_path / "foreign")
    assert "pass --teacher" in heal(place, book, code=1)
    heal(place, book, "--teacher", dense)
    after = weights(tmp_path / "foreign-healed")
    for name, weight in model.named_parameters():
        assert torch.equal(weight == 0, after[name] == 0), name
    assert not (tmp_path / "foreign-healed" / "thresher.json").exists()


STEPS = [
    *((Healer, "_tick", call) for call in (1, 40)),
    *((Healer, "_save", call) for call in (1, 8)),
    (os, "replace", 20),
    (folder, "_write", 1),
    (Output, "publish", 1),
    (os, "rename", 1),
]


@pytest.fixture(scope="module")
def whole(sparse, book, tmp_path_factory):
    """The weights after a run that nothing stopped."""
    out = tmp_path_factory.mktemp("heal") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        timeless(patch)
        heal(sparse, book, "--out", out)
    return weights(out)


@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s[0].__name__}.{s[1]}-{s[2]}")
def test_the_same_command_again_goes_on(step, whole, sparse, book, tmp_path):
    owner, name, call = step
    with pytest.MonkeyPatch.context() as patch:
        calls = stop(patch, owner, name, call)
        heal(sparse, book, "--out", tmp_path / "out", code=130)
    assert len(calls) >= call
    heal(sparse, book, "--out", tmp_path / "out")
    found = weights(tmp_path / "out")
    assert all(torch.equal(found[name], weight) for name, weight in whole.items())
    assert os.listdir(tmp_path) == ["out"]


def test_a_finished_run_is_not_done_again(sparse, book, tmp_path, monkeypatch):
    heal(sparse, book, "--out", tmp_path / "out")
    monkeypatch.setattr(Healer, "run", None)
    heal(sparse, book, "--out", tmp_path / "out")
    assert "exists; choose another" in heal(
        sparse, book, "--out", tmp_path / "out", "--seed", 1, code=1
    )


def test_a_smaller_folder_is_healed_and_stays_stock(dense, smaller, book, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_RATES", (1e-3,))
    heal(smaller, book, "--out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "thresher.json").read_text())
    assert record["healing"]["loss_after"] < record["healing"]["loss_before"]
    # Blocks are compared, whose outputs are as wide as the dense model's.
    assert record["healing"]["hidden"]
    assert record["structure"]["weights"]["after"] < record["structure"]["weights"]["before"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == json.loads((smaller / "config.json").read_text())
    assert "quantization_config" not in config
    before, after = weights(smaller), weights(tmp_path / "out")
    sizes = [sum(w.numel() for w in each.values()) for each in (after, before, weights(dense))]
    assert sizes[0] == sizes[1] < sizes[2]
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_teacher_that_the_record_does_not_name_is_warned_of(sparse, dense, book, tmp_path):
    other = shutil.copytree(dense, tmp_path / "other")
    words = "the record says that the model was made of"
    assert words in heal(sparse, book, "--teacher", other, "--out", tmp_path / "out")
    assert words not in heal(sparse, book, "--teacher", dense, "--out", tmp_path / "same")


def test_an_unfinished_run_of_another_seed_is_not_taken_up(sparse, book, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "_write", None)
        with pytest.raises(TypeError):
            heal(sparse, book, "--out", tmp_path / "out")
    more = ("--out", tmp_path / "out", "--seed", 1)
    assert "unfinished run with other options" in heal(sparse, book, *more, code=1)
    heal(sparse, book, *more, "--overwrite")


def test_a_record_that_no_longer_fits_is_refused(sparse, book, tmp_path):
    place = shutil.copytree(sparse, tmp_path / "small")
    record = json.loads((place / "thresher.json").read_text())
    record["layers"][3]["kept"] //= 2
    (place / "thresher.json").write_text(json.dumps(record))
    output = heal(place, book, code=1)
    name = record["layers"][3]["name"]
    assert f"kept weights in '{name}', which has" in output
    assert "move" in output
    assert sorted(os.listdir(tmp_path)) == ["small"]


def test_what_cannot_be_healed_is_refused(sparse, dense, book, tmp_path):
    assert "minutes must be a finite number above 0" in heal(sparse, book, "--minutes", 0, code=1)
    assert "no zeros" in heal(dense, book, "--teacher", dense, "--out", tmp_path / "out", code=1)
    short = tmp_path / "short.txt"
    short.write_text("Too short to be cut in two windows")
    output = heal(sparse, book, "--text", short, "--out", tmp_path / "out", code=1)
    assert "gives 1 window of 32 tokens" in output
    assert "lie in one another" in heal(sparse, book, "--out", sparse / "out", code=1)


def test_a_teacher_with_another_tokenizer_is_refused(sparse, dense, book, tmp_path):
    other = shutil.copytree(dense, tmp_path / "other")
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(other)
    output = heal(sparse, book, "--teacher", other, "--out", tmp_path / "out", code=1)
    assert "other tokens than the model's (257 and 256)" in output
