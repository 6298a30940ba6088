"""``--sparsity auto``: what is chosen, that it is what the same density gives, and going on."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from thresher import choosing
from thresher.cli import main
from thresher.prune.disk import DiskRun


@pytest.fixture(scope="module")
def common(book):
    return ("--windows", 8, "--length", 32, "--calibration", book)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["prune", *(str(each) for each in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def weights(folder):
    return [file.read_bytes() for file in sorted(Path(folder).glob("*.safetensors"))]


def record(folder):
    return json.loads((Path(folder) / "thresher.json").read_text())


@pytest.fixture(scope="module")
def asked(llama_folder, common, tmp_path_factory):
    """The same model cut to what is chosen of it: its weights are random, and bear every cut."""
    out = tmp_path_factory.mktemp("asked") / "out"
    run(llama_folder, "--density", 0.5, *common, "--no-evaluate", "--out", out)
    return out


@pytest.fixture
def executed(monkeypatch):
    """The densities of the runs that were executed, in their order."""
    found, real = [], DiskRun.execute

    def execute(self, output):
        found.append(self.recipe.target)
        return real(self, output)

    monkeypatch.setattr(DiskRun, "execute", execute)
    return found


@pytest.mark.parametrize(("first", "runs"), [(0.6, [0.6, 0.5]), (0.5, [0.5, 0.5])])
def test_the_largest_cut_within_reach_is_what_its_density_gives(
    llama_folder, common, asked, tmp_path, monkeypatch, executed, first, runs
):
    monkeypatch.setattr(choosing, "_FIRST", first)
    out = tmp_path / "out"
    printed = run(llama_folder, "--sparsity", "auto", *common, "--out", out)
    assert "chosen: 50 %, the largest cut measured within 1.2 times" in printed
    said = [line for line in printed.splitlines() if line[1:2] == "/" and line[4] != "["]
    known = ["1/3 pruning", "2/3 evaluating", *["3/3 curve: evaluating"] * 3]
    # How many there are after the choice is not known before.
    more = ["1/2 removing 50 % ...", "2/2 evaluating"] if first == 0.6 else []
    assert len(said) == len(known + more)
    assert all(line.startswith(words) for line, words in zip(said, known + more, strict=True))
    # The second time a run of the same density finds that it has ended.
    assert executed == runs
    assert weights(out) == weights(asked)
    found = record(out)
    assert found["density_asked"] == 0.5
    assert found["fingerprint"] == record(asked)["fingerprint"]
    held = found["evaluation"]
    assert sorted(p["density"] for p in held["curve"]) == [0.6, 0.7, 0.8]
    assert held["pruned_perplexity"] <= 1.2 * held["dense_perplexity"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    # The same command again finds all done.
    again = run(llama_folder, "--sparsity", "auto", *common, "--out", out)
    assert "chosen" not in again
    assert "evaluating" not in again
    assert record(out) == found


def test_where_none_is_within_reach_the_smallest_is_taken(
    llama_folder, common, tmp_path, monkeypatch
):
    monkeypatch.setattr(choosing, "HIGH_COST", 0.5)
    out = tmp_path / "out"
    printed = run(llama_folder, "--sparsity", "auto", *common, "--out", out)
    assert "chosen: 20 %, the smallest cut, as none stays within 0.5 times" in printed
    assert record(out)["density_asked"] == 0.8


def test_a_command_that_was_stopped_keeps_its_choice(
    llama_folder, common, asked, tmp_path, monkeypatch, executed
):
    out, real = tmp_path / "out", DiskRun._write

    def stopped(self, visit, masks, writer):
        if self.recipe.target == 0.5 and visit.index == 2:
            raise KeyboardInterrupt
        return real(self, visit, masks, writer)

    monkeypatch.setattr(DiskRun, "_write", stopped)
    arguments = (llama_folder, "--sparsity", "auto", *common, "--out", out)
    run(*arguments, code=130)
    monkeypatch.setattr(DiskRun, "_write", real)
    assert executed == [0.6, 0.5]
    # With other options it is another run.
    other = (llama_folder, "--sparsity", "auto", *common, "--update", "keep", "--out", out)
    assert "unfinished run with other options" in run(*other, code=1)
    assert "chosen" not in run(*arguments)
    assert executed == [0.6, 0.5, 0.5]
    assert weights(out) == weights(asked)
    assert len(record(out)["evaluation"]["curve"]) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--pattern", "2:4"), "pattern 2:4 keeps 0.5"),
        (("--density", 0.5), "leave --density 0.5 away"),
        (("--no-evaluate",), "leave --no-evaluate away"),
        (("--method", "structured"), "makes models smaller"),
    ],
)
def test_what_leaves_nothing_to_choose_is_said_before_any_work(
    llama_folder, common, tmp_path, options, words
):
    out = tmp_path / "out"
    printed = run(llama_folder, "--sparsity", "auto", *options, *common, "--out", out, code=1)
    assert words in " ".join(printed.split())
    assert not any(tmp_path.iterdir())
