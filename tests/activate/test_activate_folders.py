"""Folders with thresholds: what is written, who reads it, and what is refused."""

import json
import shutil

import pytest
import torch
import warm
from model_folders import save_folder, tiny_llama
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

import thresher as th
from thresher.core.errors import CheckpointError, LayerError, OptionError
from thresher.parts.activations.attached import attached, detach
from thresher.prune.disk import prune_folder
from thresher.prune.heal.session import check_teacher
from thresher.prune.magnitude import MagnitudePruning
from thresher.run.files.activations import ACTIVATIONS_FILE

METHODS = ("teal", "wina", "cats", "r-sparse")
ROWS = torch.arange(40).reshape(2, 20)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return save_folder(tiny_llama(), tmp_path_factory.mktemp("dense") / "llama")


def loaded(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=ROWS).logits


def activated(dense, method="teal", **options):
    model = loaded(dense)
    options = {"sparsity": 0.5, "length": 64, "windows": 4, "progress": False} | options
    return th.activate(model, method, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rule", [None, "top-k"])
def test_saved_and_loaded_it_is_the_same(method, rule, dense, tmp_path):
    model = activated(dense, method, rule=rule)
    th.save(model, tmp_path / "sparse")
    again = loaded(tmp_path / "sparse")
    assert torch.equal(logits(again), logits(model))
    assert attached(again).keys() == attached(model).keys()
    again.save_pretrained(tmp_path / "twice")
    assert torch.equal(logits(loaded(tmp_path / "twice")), logits(model))
    half = loaded(tmp_path / "sparse", dtype=torch.bfloat16)
    for key, selection in attached(half).items():
        for name in ("threshold", "scale"):
            if name in selection.held:
                before = attached(model)[key].tensors()[name]
                assert torch.equal(selection.tensors()[name], before)


def test_weights_and_names_are_the_dense_models(dense, tmp_path):
    th.save(activated(dense), tmp_path / "sparse")
    held, stock = (load_file(f / "model.safetensors") for f in (tmp_path / "sparse", dense))
    assert held.keys() == stock.keys()
    assert all(torch.equal(held[name], stock[name]) for name in held)


def test_without_thresher_it_is_the_dense_model(dense, tmp_path):
    th.save(activated(dense), tmp_path / "sparse")
    code = """
import sys, torch
from transformers import AutoModelForCausalLM
models = [AutoModelForCausalLM.from_pretrained(f).eval() for f in sys.argv[1:]]
assert "thresher" not in sys.modules
rows = torch.arange(20)[None]
with torch.no_grad():
    assert torch.equal(*(m(input_ids=rows).logits for m in models))
"""
    warm.run("-c", code, tmp_path / "sparse", dense)


def test_exported_it_is_the_dense_model(dense, tmp_path):
    th.save(activated(dense), tmp_path / "sparse")
    th.export(tmp_path / "sparse", tmp_path / "plain")
    assert "thresher" not in (tmp_path / "plain" / "config.json").read_text()
    assert not attached(loaded(tmp_path / "plain"))
    assert torch.equal(logits(loaded(tmp_path / "plain")), logits(loaded(dense)))


def test_a_body_alone_keeps_its_thresholds(dense, tmp_path):
    th.save(activated(dense), tmp_path / "sparse")
    body = AutoModel.from_pretrained(tmp_path / "sparse")
    assert len(attached(body)) == 21


def test_the_record_lies_beside_it(dense, tmp_path):
    model = activated(dense)
    th.save(model, tmp_path / "sparse")
    text = (tmp_path / "sparse" / "thresher-activations.json").read_text()
    record = th.activation_record(model)
    assert type(record).from_json(text) == record


def sparse_folder(dense, tmp_path):
    th.save(activated(dense), tmp_path / "sparse")
    return tmp_path / "sparse"


def test_thresholds_of_another_model_are_refused(dense, tmp_path):
    other = save_folder(tiny_llama(hidden=48), tmp_path / "other")
    folder = sparse_folder(dense, tmp_path)
    shutil.copy(folder / ACTIVATIONS_FILE, other)
    config = json.loads((other / "config.json").read_text()) | {"thresher_activations": 1}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"thresholds of another model.*32 inputs"):
        loaded(other)


def test_missing_and_damaged_thresholds_are_refused(dense, tmp_path):
    folder = sparse_folder(dense, tmp_path)
    file = folder / ACTIVATIONS_FILE
    whole = file.read_bytes()
    file.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        loaded(folder)
    file.write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        loaded(folder)
    file.write_bytes(whole)
    tensors = load_file(file)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file(tensors, file, metadata | {"format_version": "2"})
    with pytest.raises(CheckpointError, match="version 2"):
        loaded(folder)
    save_file(tensors, file, metadata | {"sites": "[{]"})
    with pytest.raises(CheckpointError, match="damaged"):
        loaded(folder)
    del tensors["model.layers.0.self_attn.q_proj.sparse_inputs.threshold"]
    save_file(tensors, file, metadata)
    with pytest.raises(CheckpointError, match=r"no tensor .*q_proj\.sparse_inputs\.threshold"):
        loaded(folder)


def test_what_knows_nothing_of_thresholds_refuses_them(dense, tmp_path):
    folder = sparse_folder(dense, tmp_path)
    model = loaded(folder)
    with pytest.raises(OptionError, match=r"in 4 bits alone.*in torch"):
        th.Engine(folder)
    with pytest.raises(LayerError, match="make its activations sparse last"):
        th.prune(model, "magnitude", density=0.5)
    with pytest.raises(LayerError, match="make its activations sparse last"):
        th.prune(model, "spa", density=0.5)
    with pytest.raises(LayerError, match="make its activations sparse last"):
        check_teacher(model, loaded(dense))
    with pytest.raises(OptionError, match="make its activations sparse last"):
        prune_folder(folder, tmp_path / "out", MagnitudePruning(density=0.5), None)
    packed = th.pack(model, batch=1, show=False)
    assert len(attached(packed)) == 21


def test_a_pruned_model_can_be_activated_and_saved(dense, tmp_path):
    model = loaded(dense)
    th.prune(model, "magnitude", density=0.5, progress=False)
    th.activate(model, "teal", sparsity=0.5, length=64, windows=4, progress=False)
    th.save(model, tmp_path / "both")
    assert torch.equal(logits(loaded(tmp_path / "both")), logits(model))
    assert (tmp_path / "both" / "thresher.json").is_file()


def test_state_dicts_that_are_passed_are_saved_without_thresholds(dense, tmp_path):
    model = activated(dense)
    model.save_pretrained(tmp_path / "given", state_dict=model.state_dict())
    assert not any("sparse_" in n for n in load_file(tmp_path / "given" / "model.safetensors"))
    assert torch.equal(logits(loaded(tmp_path / "given")), logits(model))


def test_a_model_made_dense_again_saves_as_dense(dense, tmp_path):
    model = loaded(sparse_folder(dense, tmp_path))
    for name, side in attached(model):
        detach(model.get_submodule(name), side)
    model.save_pretrained(tmp_path / "dense")
    assert torch.equal(logits(loaded(tmp_path / "dense")), logits(loaded(dense)))
