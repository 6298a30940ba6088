"""Output folders: one process at a time, whole or not at all, and nothing of anybody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from thresher.core.errors import CheckpointError, OptionError
from thresher.core.output import check_apart, is_ours, writing

_RECORD = json.dumps({"recipe": "Recipe()", "layers": []})


def write(out: Path, text: str, replace: bool = False) -> None:
    with writing(out, "test") as output:
        output.check_free(replace)
        output.made.mkdir()
        (output.made / "thresher.json").write_text(_RECORD)
        (output.made / "weights").write_text(text)
        output.publish(replace)


def test_it_appears_whole_and_leaves_nothing_else(tmp_path):
    write(tmp_path / "a" / "out", "new")
    assert (tmp_path / "a" / "out" / "weights").read_text() == "new"
    assert os.listdir(tmp_path / "a") == ["out"]


def test_what_fails_leaves_nothing(tmp_path):
    with suppress(RuntimeError), writing(tmp_path / "out", "test") as output:
        (output.work / "half").write_text("x")
        raise RuntimeError
    assert not os.listdir(tmp_path)


def test_what_is_kept_is_taken_up_by_the_same_kind_of_work_alone(tmp_path):
    with suppress(RuntimeError), writing(tmp_path / "out", "prune", keep=True) as output:
        (output.work / "half").write_text("x")
        raise RuntimeError
    with writing(tmp_path / "out", "save") as output:
        assert not (output.work / "half").exists()
    with writing(tmp_path / "out", "prune") as output:
        assert (output.work / "half").read_text() == "x"
        output.restart()
        assert not (output.work / "half").exists()
    assert not os.listdir(tmp_path)


def test_one_process_at_a_time(tmp_path):
    script = (
        "import sys; from pathlib import Path; from thresher.core.output import writing\n"
        "with writing(Path(sys.argv[1]), 'test'): print('in', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "out")]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(OptionError, match="another process is writing"):
            write(tmp_path / "out", "mine")
        write(tmp_path / "elsewhere", "mine")
        other.kill()
        other.wait()
    # A dead process holds nothing, and its remains are cleared away.
    write(tmp_path / "out", "mine")
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "out"]


def test_links_lead_to_the_same_lock(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with writing(tmp_path / "real" / "out", "test"), pytest.raises(OptionError, match="another"):
        write(tmp_path / "link" / "out", "mine")


def test_a_folder_of_ours_is_replaced_when_that_is_asked(tmp_path):
    write(tmp_path / "out", "old")
    with pytest.raises(OptionError, match="exists"):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "weights").read_text() == "old"
    write(tmp_path / "out", "new", replace=True)
    assert (tmp_path / "out" / "weights").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


def _folder(out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("x")


def _file(out: Path) -> None:
    out.write_text("x")


def _link(out: Path) -> None:
    out.symlink_to(out.parent / "nowhere")


def _dense_model(out: Path) -> None:
    out.mkdir()
    (out / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')


def _another_record(out: Path) -> None:
    out.mkdir()
    (out / "thresher.json").write_text("[1]")


@pytest.mark.parametrize("stands", [_folder, _file, _dense_model, _another_record])
def test_what_is_not_ours_is_never_replaced(stands, tmp_path):
    out = tmp_path / "out"
    stands(out)
    with pytest.raises(OptionError, match="not written by Thresher"):
        write(out, "new", replace=True)
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_is_followed_and_stays(tmp_path):
    _link(tmp_path / "out")
    write(tmp_path / "out", "new")
    assert (tmp_path / "nowhere" / "weights").read_text() == "new"
    assert (tmp_path / "out").is_symlink()


def test_remains_that_only_look_like_ours_are_left(tmp_path):
    for name in (".out.partial.thresher", ".out.abcdefgh.thresher", ".out.abcdefgi.thresher"):
        (tmp_path / name).mkdir()
    (tmp_path / ".out.abcdefgh.thresher" / "notes").write_text("x")
    other = {"out": "another", "kind": "test"}
    (tmp_path / ".out.abcdefgi.thresher" / "thresher-work.json").write_text(json.dumps(other))
    before = sorted(os.listdir(tmp_path))
    write(tmp_path / "out", "new")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "out"])


def test_remains_without_their_marker_are_cleared_away(tmp_path):
    """As a process leaves them that ends right after it has made the folder."""
    (tmp_path / ".out.abcdefgh.thresher").mkdir()
    (tmp_path / ".out.abcdefgi.thresher").mkdir()
    (tmp_path / ".out.abcdefgi.thresher" / "thresher-work.json").touch()
    write(tmp_path / "out", "new")
    assert os.listdir(tmp_path) == ["out"]


def test_long_names(tmp_path):
    write(tmp_path / ("n" * 250), "new")
    assert (tmp_path / ("n" * 250) / "weights").read_text() == "new"


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write"):
        write(tmp_path / "file" / "out", "new")


@pytest.mark.parametrize("pair", [("m", "m"), ("m", "m/out"), ("o/m", "o")])
def test_a_model_is_not_written_over_itself(pair, tmp_path):
    source, out = (tmp_path / each for each in pair)
    source.mkdir(parents=True)
    with pytest.raises(OptionError, match="in one another"):
        check_apart(source, out)
    check_apart(source, tmp_path / "m2")


def test_an_empty_folder_is_nobodys(tmp_path):
    assert is_ours(tmp_path)


def test_the_folder_one_is_in_is_not_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in (Path(), Path("/")):
        with pytest.raises(OptionError, match="name a folder inside it"):
            write(out, "new")


def test_what_the_system_refuses_is_said_in_a_line(tmp_path):
    with pytest.raises(CheckpointError, match="cannot write"), writing(tmp_path / "a", "t") as out:
        (out.made / "missing" / "file").write_text("x")
