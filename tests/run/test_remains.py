"""Folders over which something else was saved, or of which a part was lost."""

import json
import shutil

import pytest
import torch
from model_folders import save_folder, tiny_llama
from transformers import AutoModelForCausalLM

import thresher as th
from thresher.core.device import device_named
from thresher.core.errors import CheckpointError, OptionError
from thresher.core.files import write_text


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    model = tiny_llama(layers=1, tie_word_embeddings=False)
    return save_folder(model, tmp_path_factory.mktemp("remains") / "dense")


def test_a_dense_model_that_was_saved_over_a_sparse_one_is_the_model(dense, tmp_path):
    folder = tmp_path / "saved"
    sparse = AutoModelForCausalLM.from_pretrained(dense)
    th.prune(sparse, "magnitude", density=0.5, progress=False)
    th.save(sparse, folder)
    other = tiny_llama(layers=1, tie_word_embeddings=False, initializer_range=0.3)
    other.save_pretrained(folder)
    assert (folder / "thresher.safetensors.index.json").exists()
    th.export(folder, tmp_path / "exported")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").state_dict()
    assert found.keys() == other.state_dict().keys()
    assert all(torch.equal(found[name], each) for name, each in other.state_dict().items())


def outside(folder):
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../dense/model.safetensors"}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def without_head(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (outside, "which is no file of the folder"),
        (pointer, "model.safetensors"),
        (without_head, "lacks 'lm_head.weight'"),
    ],
)
def test_the_engine_runs_no_other_weights_and_no_random_ones(spoil, message, dense, tmp_path):
    folder = shutil.copytree(dense, tmp_path / "model")
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        th.Engine(folder)


@pytest.mark.parametrize("name", ["mps", "xpu", "meta"])
def test_devices_that_nothing_was_tried_on_are_refused(name):
    with pytest.raises(OptionError, match=f"device='{name}' is of a kind"):
        device_named(name)


def test_a_folder_that_cannot_be_written_is_one_clean_error(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    for name in ("write_text", "unlink"):
        monkeypatch.setattr(type(tmp_path), name, read_only)
    with pytest.raises(CheckpointError, match="Read-only file system"):
        write_text(tmp_path / "report.html", "text")
