"""Folders that lack something, are older than their record, are killed over, linked or full."""

import errno
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import gguf
import pytest
import torch
from model_folders import save_folder, tiny_llama
from safetensors.torch import load_file, save_file
from test_cli import run
from test_engine_gguf import write
from transformers import AutoModelForCausalLM

import thresher as th
from thresher import workflow
from thresher.core.errors import CheckpointError, DataError, OptionError
from thresher.core.files import write_error
from thresher.packing import export_rounded, pack_model
from thresher.run import harness
from thresher.run.engine.gguf.write import export_gguf
from thresher.run.engine.loading import tokenizer_of


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    model = tiny_llama(layers=1, tie_word_embeddings=False)
    return save_folder(model, tmp_path_factory.mktemp("in_use") / "dense")


@pytest.fixture(scope="module")
def sparse(dense):
    model = AutoModelForCausalLM.from_pretrained(dense)
    th.prune(model, "magnitude", density=0.5, progress=False)
    th.save(model, dense.parent / "sparse")
    return dense.parent / "sparse"


@pytest.fixture
def headless(dense, tmp_path):
    folder = shutil.copytree(dense, tmp_path / "headless")
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_no_command_takes_a_random_head(headless):
    with pytest.raises(CheckpointError, match=r"lacks 'lm_head\.weight'"):
        workflow.load_model(headless)


def test_no_model_is_exported_without_its_head(headless, tmp_path):
    with pytest.raises(CheckpointError, match=r"no tensor for 'lm_head\.weight'"):
        th.export(headless, tmp_path / "out")
    assert os.listdir(tmp_path) == ["headless"]


def test_a_tokenizer_of_a_larger_model_is_said_to_be_one(dense, tmp_path):
    folder, text = shutil.copytree(dense, tmp_path / "model"), tmp_path / "text.txt"
    small = tiny_llama(layers=1, vocab_size=100)
    small.save_pretrained(folder)
    text.write_text("zebra " * 100)
    said = run("eval", folder, "--text", text, "--length", 16, code=1)
    assert "is beyond the 100 of LlamaForCausalLM's vocabulary: the tokenizer belongs to" in said
    with pytest.raises(DataError, match="beyond the 100"):
        th.perplexity(small.eval(), torch.tensor([[1, 100]]))


def test_a_folder_without_a_tokenizer_gets_none_made_up(tmp_path):
    """As some versions of transformers do, by the architecture alone."""
    tiny_llama(layers=1).save_pretrained(tmp_path / "model")
    assert tokenizer_of(tmp_path / "model") is None
    with pytest.raises(CheckpointError, match="has no tokenizer; write the original model's"):
        workflow.load_tokenizer(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with pytest.raises(DataError, match=r"texts need a tokenizer, and .* has none"):
        th.prune(model, "wanda", ["A text."], density=0.5, progress=False)
    th.prune(model, "magnitude", density=0.5, progress=False)
    th.save(model, tmp_path / "sparse")
    assert not list((tmp_path / "sparse").glob("*token*"))


def test_what_transformers_does_not_know_is_exported_all_the_same(dense, tmp_path):
    folder = shutil.copytree(dense, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["NotYetForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    th.export(folder, tmp_path / "out")
    found, whole = (load_file(f / "model.safetensors") for f in (tmp_path / "out", dense))
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())


def test_info_says_that_a_record_is_older_than_the_weights(sparse, tmp_path):
    assert "older" not in run("info", sparse)
    folder = shutil.copytree(sparse, tmp_path / "saved")
    tiny_llama(layers=1, tie_word_embeddings=False).save_pretrained(folder)
    said = " ".join(run("info", folder).split())
    assert "The record is older than the weights: it counted density 0.500" in said
    assert "the weights have 1.000" in said
    assert "older" in json.loads(run("info", folder, "--json"))["changed"]
    record = (folder / "thresher.json").read_text().replace("layers.0.mlp", "layers.9.mlp")
    (folder / "thresher.json").write_text(record)
    said = " ".join(run("info", folder).split())
    assert "3 of its 7 layers are not in the folder ('model.layers.9.mlp." in said


def said_of(model, **parts):
    """Return a writer of files that say so of their tokenizer."""

    class Writer(gguf.GGUFWriter):
        def write_header_to_file(self, *arguments, **options):
            self.add_tokenizer_model(model)
            for name, values in parts.items():
                getattr(self, f"add_token_{name}")(values)
            super().write_header_to_file(*arguments, **options)

    return Writer


def test_a_gguf_tokenizer_without_merges_is_said_to_be_unreadable(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "GGUFWriter", said_of("gpt2", types=[1] * 2000))
    engine = th.Engine(write(tmp_path / "model.gguf"))
    with pytest.warns(UserWarning, match=r"tokenizer of .*model\.gguf' cannot be read"):
        assert engine.tokenizer is None
    with pytest.raises(DataError, match="no tokenizer"):
        engine.generate("text")


@pytest.mark.parametrize("said", ["Tasks not found: nope", "a width does not fit"])
def test_a_task_that_the_harness_lacks_is_one_line(said, monkeypatch):
    def fail():
        raise ValueError(said)

    monkeypatch.setattr(harness, "register_model_type", lambda: None)
    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "lm_eval.__main__", SimpleNamespace(cli_evaluate=fail))
    kind, match = (OptionError, r"no task nope; `thresher lm-eval ls tasks`")
    if "Tasks" not in said:
        kind, match = ValueError, "^a width does not fit$"
    with pytest.raises(kind, match=match):
        harness.run_harness(["--tasks", "nope"])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_place_that_may_not_be_written_to_gets_a_remedy(number):
    error = write_error(Path("out"), OSError(number, os.strerror(number)))
    assert "choose a folder that you may write to" in str(error)


@pytest.mark.parametrize("room", [1000, 30000])
def test_a_gguf_file_that_finds_no_room_is_not_there(room, dense, tmp_path):
    """At first the file's head does not fit, then a tensor, of which NumPy writes itself."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"model\.gguf': the disk is full: free room"):
            export_gguf(dense, tmp_path / "model.gguf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []
    export_gguf(dense, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").stat().st_size > 30000


def killed(step, work):
    """Run `work` in a process that is killed before it renames for the `step`-th time."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [step]

    def counted(real):
        def rename(*arguments, **options):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return rename

    try:
        for name in ("replace", "rename"):
            setattr(os, name, counted(getattr(os, name)))
        work()
        os._exit(0)
    finally:
        os._exit(1)


def contents(path):
    files = path.iterdir() if path.is_dir() else [path]
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("kind", ["export", "save", "pack", "gguf"])
def test_what_is_killed_is_done_whole_by_the_same_call_again(kind, sparse, book, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(sparse)
    calls = {
        "export": lambda out: th.export(sparse, out),
        "save": lambda out: th.save(model, out),
        "pack": lambda out: pack_model(str(sparse), out, 4, book, 2, 32),
        "gguf": lambda out: export_rounded(str(sparse), out, book, 2, 32),
    }

    def again(folder):
        # The same name each time, as it is in the file.
        (tmp_path / folder).mkdir(exist_ok=True)
        calls[kind](tmp_path / folder / "out")

    again("whole")
    whole = contents(tmp_path / "whole" / "out")
    for step in range(1, 30):
        out = tmp_path / str(step) / "out"
        code = killed(step, lambda: again(str(step)))  # noqa: B023 - called here and now
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert not out.exists()
        again(str(step))
        assert contents(out) == whole
        assert os.listdir(out.parent) == ["out"]
    assert step > 2


def test_a_sparse_model_is_trained_and_saved_into_its_own_folder(sparse, tmp_path):
    folder = shutil.copytree(sparse, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    with pytest.raises(OptionError, match="exists"):
        th.save(model, folder)
    model.save_pretrained(folder)
    found = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())
    th.export(folder, tmp_path / "out")
    plain = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(plain[name], found[name]) for name in plain)


def test_shards_that_are_links_into_the_hubs_cache_are_read(dense, tmp_path):
    cache = tmp_path / "models--some--model"
    folder = cache / "snapshots" / "abc"
    model = AutoModelForCausalLM.from_pretrained(dense)
    model.save_pretrained(folder, max_shard_size="30KB")
    (cache / "blobs").mkdir()
    files = sorted(folder.iterdir())
    assert sum(file.suffix == ".safetensors" for file in files) > 1
    for number, file in enumerate(files):
        file.rename(cache / "blobs" / str(number))
        file.symlink_to(f"../../blobs/{number}")
    found = workflow.load_model(folder).state_dict()
    th.export(folder, tmp_path / "out")
    plain = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name], tensor)
        assert torch.equal(plain[name], tensor)
    assert not any(file.is_symlink() for file in (tmp_path / "out").iterdir())
