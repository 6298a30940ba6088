"""Sparse checkpoints: bytes, loading by transformers, export, and damage."""

import json
import subprocess
import sys

import pytest
import torch
import warm
from model_folders import tiny_llama
from safetensors.torch import load_file, save_file

import thresher as th
from thresher.core.errors import CheckpointError, OptionError
from thresher.parts.patterns import NM
from thresher.prune.disk import prune_folder
from thresher.prune.memory import as_recipe
from thresher.run.files.checkpoint import Checkpoint
from thresher.run.layouts import formats


@pytest.fixture(params=["unstructured", "2:4", "1:4", "4:8", "channels"])
def sparse_folder(request, llama_folder, tmp_path):
    density = 0.5 if ":" not in request.param else None
    recipe = as_recipe("magnitude").with_options(density, request.param)
    prune_folder(llama_folder, tmp_path / "sparse", recipe, None)
    return tmp_path / "sparse"


def test_bitmask_bytes_are_those_of_the_specification():
    weight = torch.zeros(2, 10)
    weight[0, 0], weight[0, 9], weight[1, 3] = 1.0, 2.0, 3.0
    parts = formats.pack(weight, weight != 0)
    assert parts["_bitmask"].tolist() == [[0b00000001, 0b00000010], [0b00001000, 0]]
    assert parts["_values"].tolist() == [1.0, 2.0, 3.0]


def test_index_bytes_are_those_of_the_specification():
    weight = torch.tensor([[0.0, 5.0, 0.0, 6.0, 7.0, 8.0, 0.0, 0.0]])
    parts = formats.pack(weight, weight != 0, 4)
    # Positions 1, 3, 0, 1 in two bits each, the first in the lowest bits.
    assert parts["_indices"].tolist() == [[0b01_00_11_01]]
    assert parts["_values"].tolist() == [[5.0, 6.0, 7.0, 8.0]]


@pytest.mark.parametrize("group", [None, NM(2, 4), NM(1, 4), NM(2, 8), NM(3, 5)])
@pytest.mark.parametrize("rows", [1, 3, 16])
def test_unpacking_restores_weight_and_support(rows, group):
    torch.manual_seed(rows)
    weight = torch.randn(rows, 40).bfloat16()
    mask = (
        torch.rand(rows, 40) < 0.3
        if group is None
        else group.mask(weight.abs().float(), keep=group.n * rows * 40 // group.m)
    )
    parts = formats.pack(weight, mask, group.m if group else None)
    restored, support = formats.unpack(parts, "w", group.m if group else None)
    assert torch.equal(restored, torch.where(mask, weight, 0))
    assert torch.equal(support, mask)


def test_transformers_loads_it_after_importing_thresher(sparse_folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(sparse_folder)
    checkpoint = Checkpoint(sparse_folder)
    for name, parameter in model.named_parameters():
        if name in checkpoint:
            assert torch.equal(parameter, checkpoint.tensor(name)), name
    assert not any(p.is_meta for p in model.parameters())


@pytest.mark.parametrize(
    "lines",
    [
        "import thresher; from transformers import AutoModelForCausalLM as A",
        "from transformers import AutoModelForCausalLM as A; import thresher",
    ],
)
def test_import_order_does_not_matter(llama_folder, tmp_path, lines):
    recipe = as_recipe("magnitude").with_options(None, "2:4")
    prune_folder(llama_folder, tmp_path / "sparse", recipe, None)
    code = f"{lines}; A.from_pretrained({str(tmp_path / 'sparse')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_export_loads_without_thresher(sparse_folder, tmp_path):
    th.export(sparse_folder, tmp_path / "plain")
    code = (
        "import sys; from transformers import AutoModelForCausalLM as A;"
        f"m = A.from_pretrained({str(tmp_path / 'plain')!r});"
        "assert 'thresher' not in sys.modules;"
        "print(float((m.model.layers[0].mlp.up_proj.weight == 0).float().mean()))"
    )
    assert 0.4 < float(warm.run("-c", code).stdout) < 0.8
    with pytest.raises(OptionError, match="exists"):
        th.export(sparse_folder, tmp_path / "plain")


def test_saving_a_model_pruned_in_memory(tmp_path):
    from model_folders import byte_tokenizer
    from transformers import AutoModelForCausalLM

    model = tiny_llama()
    record = th.prune(model, "magnitude", pattern="2:4", progress=False)
    th.save(model, tmp_path / "sparse", record, byte_tokenizer())
    assert Checkpoint(tmp_path / "sparse").is_packed("model.layers.0.mlp.up_proj.weight")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "sparse")
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_saving_keeps_record_and_tokenizer_unasked(llama_folder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    record = th.prune(model, "magnitude", density=0.5, progress=False)
    th.save(model, tmp_path / "sparse")
    assert (tmp_path / "sparse" / "thresher.json").read_text() == record.to_json()
    AutoTokenizer.from_pretrained(tmp_path / "sparse")
    # A model that was made here has none, and one that was not pruned no record.
    th.save(tiny_llama(), tmp_path / "new")
    assert not {"thresher.json", "tokenizer.json"} & {p.name for p in (tmp_path / "new").iterdir()}


def test_pruning_a_sparse_checkpoint_again(sparse_folder, tmp_path):
    prune_folder(sparse_folder, tmp_path / "again", as_recipe("magnitude").with_options(0.2), None)
    name = "model.layers.0.mlp.up_proj.weight"
    first = Checkpoint(sparse_folder).tensor(name)
    second = Checkpoint(tmp_path / "again").tensor(name)
    assert 0.18 < float((second != 0).float().mean()) <= 0.21
    assert torch.equal(second[second != 0], first[second != 0])


def damaged(folder, change):
    file = folder / "thresher-00000.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def test_corrupted_supports_are_refused_by_name(llama_folder, tmp_path):
    from transformers import AutoModelForCausalLM

    name = "model.layers.0.mlp.up_proj.weight"
    for pattern, key in (("unstructured", "_bitmask"), ("2:4", "_indices")):
        folder = tmp_path / pattern.replace(":", "")
        prune_folder(llama_folder, folder, as_recipe("magnitude").with_options(0.5, pattern), None)

        def spoil(tensors, key=key):
            tensors[name + key] = tensors[name + key] ^ 0b11

        damaged(folder, spoil)
        with pytest.raises(CheckpointError, match="up_proj"):
            Checkpoint(folder).tensor(name)
        with pytest.raises(CheckpointError, match="up_proj"):
            AutoModelForCausalLM.from_pretrained(folder)


def test_truncated_and_missing_files_are_refused(sparse_folder):
    file = sparse_folder / "thresher-00001.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="thresher-00001"):
        Checkpoint(sparse_folder)
    file.unlink()
    with pytest.raises(CheckpointError, match="thresher-00001"):
        Checkpoint(sparse_folder)


def test_pickles_are_refused_with_the_safe_way(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no weights"):
        Checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not to be read")
    with pytest.raises(CheckpointError, match="save_pretrained"):
        Checkpoint(tmp_path)


def test_a_later_format_version_is_refused(sparse_folder):
    from transformers import AutoModelForCausalLM

    config = json.loads((sparse_folder / "config.json").read_text())
    config["quantization_config"]["format_version"] = 99
    (sparse_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="99"):
        Checkpoint(sparse_folder)
    with pytest.raises(CheckpointError, match="99"):
        AutoModelForCausalLM.from_pretrained(sparse_folder)


@pytest.mark.parametrize(
    "change",
    [
        {"_indices": torch.zeros(1, 1)},
        {"_indices": torch.zeros(1, 9, dtype=torch.uint8)},
        {"_shape": torch.tensor(8)},
        {"_shape": torch.tensor([1, 0])},
        {"_shape": torch.tensor([-1, 8])},
        {"_shape": torch.tensor([1.0, 8.0])},
        {"_values": torch.zeros(3)},
        {"_values": None},
    ],
)
def test_malformed_parts_are_refused_by_name(change):
    weight = torch.tensor([[0.0, 5.0, 0.0, 6.0, 7.0, 8.0, 0.0, 0.0]])
    parts = formats.pack(weight, weight != 0, 4) | change
    with pytest.raises(CheckpointError, match="some_weight"):
        formats.unpack({k: v for k, v in parts.items() if v is not None}, "some_weight", 4)
