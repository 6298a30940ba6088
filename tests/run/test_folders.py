"""Sparse folders among others: what they take over, and what happens without Thresher."""

import json

import pytest
import torch
import warm
from model_folders import save_folder, tiny_llama
from safetensors.torch import load_file, save_file

import thresher as th
from thresher.core.errors import CheckpointError
from thresher.prune.disk import prune_folder
from thresher.prune.memory import as_recipe
from thresher.run.files.checkpoint import Checkpoint

HALF = as_recipe("magnitude").with_options(0.5)
LAYER = "model.layers.0.mlp.up_proj.weight"


def opened_elsewhere(folder):
    code = (
        "import sys; from transformers import AutoModelForCausalLM as A\n"
        f"try: A.from_pretrained({str(folder)!r})\n"
        "finally: assert 'thresher' not in sys.modules\n"
    )
    return warm.run("-c", code, check=False)


@pytest.mark.parametrize("kind", ["saved", "pruned on disk", "packed"])
def test_without_thresher_a_sparse_folder_fails_with_a_sentence(kind, tmp_path):
    model, out = tiny_llama(layers=1), tmp_path / "out"
    if kind == "pruned on disk":
        prune_folder(save_folder(model, tmp_path / "dense"), out, HALF, None)
    else:
        th.prune(model, "magnitude", density=0.5, progress=False)
        if kind == "packed":
            th.pack(model, batch=1, repeats=1, gain=0, show=False)
        th.save(model, out)
    found = opened_elsewhere(out)
    assert found.returncode != 0
    assert "import thresher" in found.stderr


def quantised(folder, codes, quantization):
    """Write a Llama whose projections are stored as `codes` makes them; return the dense one."""
    model = tiny_llama(layers=1, hidden=64)
    save_folder(model, folder)
    tensors = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        tensors |= codes(name, weight) if "proj" in name else {name: weight}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config))
    return model


def as_float8(name, weight):
    scale = weight.abs().max() / 448
    blocks = [size // 32 for size in weight.shape]
    return {
        name: (weight / scale).to(torch.float8_e4m3fn),
        f"{name}_scale_inv": scale.expand(*blocks).clone(),
    }


def as_int8(name, weight):
    return {name: (weight / weight.abs().max() * 127).to(torch.int8)}


def test_float8_is_pruned_with_its_scales(tmp_path):
    fp8 = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    model = quantised(tmp_path / "fp8", as_float8, fp8)
    prune_folder(tmp_path / "fp8", tmp_path / "out", HALF, None)
    found = Checkpoint(tmp_path / "out").tensor(LAYER).float()
    kept = found != 0
    assert 0.49 < float(kept.float().mean()) < 0.51
    torch.testing.assert_close(found[kept], model.state_dict()[LAYER][kept], rtol=0.08, atol=1e-4)


def test_codes_of_other_libraries_are_refused_by_name(tmp_path):
    foreign = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    quantised(tmp_path / "int8", as_int8, foreign)
    with pytest.raises(CheckpointError, match="bitsandbytes"):
        prune_folder(tmp_path / "int8", tmp_path / "out", HALF, None)
    assert not (tmp_path / "out").exists()


def test_companions_and_subfolders_are_carried_and_weights_of_before_are_not(tmp_path):
    source = save_folder(tiny_llama(layers=1), tmp_path / "model")
    carried = {"1_Pooling/config.json": "{}", "NOTICE": "notice", "a/b/template.jinja": "{{ x }}"}
    for name, text in carried.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    prune_folder(source, tmp_path / "out", HALF, None)
    th.export(tmp_path / "out", tmp_path / "plain")
    for folder in (tmp_path / "out", tmp_path / "plain"):
        assert {name: (folder / name).read_text() for name in carried} == carried
        assert (folder / "tokenizer.json").is_file()
        assert not (folder / "pytorch_model.bin").exists()
