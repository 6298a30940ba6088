"""Checkpoints that are loaded packed: no dense weight, no mapped file, damage refused."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
import warm
from layout_contract import one_thread  # noqa: F401
from model_folders import tiny_llama
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    FalconConfig,
    FalconForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
)

import thresher as th
from thresher.core.errors import CheckpointError
from thresher.prune.disk import prune_folder
from thresher.prune.memory import as_recipe
from thresher.run.files.checkpoint import Checkpoint
from thresher.run.files.stored import record_layouts
from thresher.run.layouts.base import Layout
from thresher.run.packed.conv import PackedConv2d
from thresher.run.packed.linear import PackedLinear

IDS = torch.arange(24).reshape(2, 12)


def packed_model(layout: str, **changes) -> nn.Module:
    """A tiny Llama whose projections are all in one layout."""
    model = tiny_llama(hidden=64, **changes).bfloat16().eval()
    for name, linear in list(model.named_modules()):
        if type(linear) is not nn.Linear or name == "lm_head":
            continue
        kind = Layout.named(layout)
        weight = linear.weight.detach() * (torch.rand(linear.weight.shape) < 0.4)
        linear.weight.data = kind.example(weight)
        model.set_submodule(name, PackedLinear.from_linear(linear, kind))
    record_layouts(model)
    return model


def packed_layers(model: nn.Module) -> dict[str, PackedLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}


def load(folder: Path, packed: bool | None = None, kind=AutoModelForCausalLM) -> nn.Module:
    """Load a folder with transformers, choosing packed or dense where that is asked."""
    config = AutoConfig.from_pretrained(folder)
    if packed is not None:
        config.quantization_config["packed"] = packed
    return kind.from_pretrained(folder, config=config)


@pytest.mark.parametrize("layout", sorted(Layout.known()))
def test_saved_and_loaded_packed(layout, tmp_path):
    model = packed_model(layout)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    before, after = packed_layers(model), packed_layers(again)
    assert len(before) == 21
    assert before.keys() == after.keys()
    for name, layer in before.items():
        other = after[name].layout
        assert type(other) is Layout.named(layout)
        assert other.settings == layer.layout.settings
        for key, tensor in layer.layout.tensors().items():
            assert torch.equal(other.tensors()[key], tensor), (name, key)
        x = torch.randn(3, layer.in_features).bfloat16()
        assert torch.equal(after[name](x), layer(x)), name
    again.save_pretrained(tmp_path / "again")
    folders = (tmp_path, tmp_path / "again")
    first, second = (load_file(folder / "thresher-00000.safetensors") for folder in folders)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pack_chooses_and_save_pretrained_keeps_the_choice(tmp_path):
    model = tiny_llama(hidden=64).bfloat16().eval()
    th.prune(model, "magnitude", density=0.1, progress=False)
    fast = th.pack(model, batch=(1,), candidates=["csr", "bitmask"], repeats=1, gain=0, show=False)
    fast.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    chosen = {name: layer.layout.name for name, layer in packed_layers(fast).items()}
    assert chosen
    assert {n: layer.layout.name for n, layer in packed_layers(again).items()} == chosen


def packed_resnet() -> nn.Module:
    """A small ResNet of transformers whose convolutions are in both layouts that convolve."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_labels=4)
    config.layer_type = "basic"
    model = ResNetForImageClassification(config).eval()
    th.prune(model, "magnitude", density=0.2, pattern="4x1", progress=False)
    convs = [n for n, m in model.named_modules() if type(m) is nn.Conv2d]
    for index, name in enumerate(convs[1:]):
        kind = Layout.named(("csr", "row-groups")[index % 2])
        model.set_submodule(name, PackedConv2d.from_conv(model.get_submodule(name), kind))
    record_layouts(model)
    return model


def test_convolutions_are_saved_and_loaded_packed(tmp_path):
    model = packed_resnet()
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    before, after = (
        {n: m for n, m in each.named_modules() if isinstance(m, PackedConv2d)}
        for each in (model, again)
    )
    assert len(before) == 5
    assert {n: m.layout.name for n, m in before.items()} == {
        n: m.layout.name for n, m in after.items()
    }
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images).logits, model(images).logits)
        dense = load(tmp_path, packed=False, kind=AutoModelForImageClassification)
        assert not any(isinstance(m, PackedConv2d) for m in dense.modules())
        torch.testing.assert_close(dense(images).logits, model(images).logits)
        th.export(tmp_path, tmp_path / "plain")
        plain = AutoModelForImageClassification.from_pretrained(tmp_path / "plain")
        assert torch.equal(plain(images).logits, dense(images).logits)


def test_a_convolution_of_another_shape_is_refused_by_name(tmp_path):
    packed_resnet().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "thresher-00000.safetensors")
    name = next(n for n in tensors if n.endswith("_shape") and list(tensors[n][2:]) == [3, 3])
    tensors[name] = tensors[name][[0, 2, 3, 1]]
    save_file(tensors, tmp_path / "thresher-00000.safetensors", metadata={"format": "pt"})
    layer = name.removesuffix(".weight_shape").removeprefix("resnet.")
    with pytest.raises(CheckpointError, match=layer):
        AutoModelForImageClassification.from_pretrained(tmp_path)


def test_save_keeps_the_layouts_and_the_record(tmp_path):
    model = tiny_llama(hidden=64).bfloat16().eval()
    record = th.prune(model, "magnitude", pattern="2:4", progress=False)
    fast = th.pack(model, batch=(1,), candidates=["n:m"], repeats=1, gain=0, show=False)
    th.save(fast, tmp_path / "small", record)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert {layer.layout.name for layer in packed_layers(again).values()} == {"n:m"}
    assert (tmp_path / "small" / "thresher.json").read_text() == record.to_json()
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize("layout", ["csr", "n:m", "bitmask", "group-sparse-4bit"])
def test_the_same_folder_loads_dense_when_asked(layout, tmp_path):
    model = packed_model(layout)
    model.save_pretrained(tmp_path)
    dense = load(tmp_path, packed=False)
    assert not packed_layers(dense)
    for name, layer in packed_layers(model).items():
        assert torch.equal(dense.get_submodule(name).weight, layer.layout.to_dense()), name
    dense.save_pretrained(tmp_path / "dense")
    assert "quantization_config" not in json.loads((tmp_path / "dense/config.json").read_text())
    assert not any("weight_" in name for name in load_file(tmp_path / "dense/model.safetensors"))
    th.export(tmp_path, tmp_path / "exported")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    for a, b in zip(dense.parameters(), exported.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "1:4", "4:8"])
def test_a_pruned_folder_loads_packed_when_asked(pattern, llama_folder, tmp_path):
    density = None if ":" in pattern else 0.5
    recipe = as_recipe("magnitude").with_options(density, pattern)
    prune_folder(llama_folder, tmp_path / "sparse", recipe, None)
    packed, dense = load(tmp_path / "sparse", packed=True), load(tmp_path / "sparse")
    layers = packed_layers(packed)
    assert len(layers) == 21
    assert not packed_layers(dense)
    kind = "n:m" if pattern in ("2:4", "1:4") else "bitmask"
    for name, layer in layers.items():
        assert layer.layout.name == kind
        assert torch.equal(layer.layout.to_dense(), dense.get_submodule(name).weight)
    packed.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, packed(IDS).logits)


def test_a_model_without_its_head_finds_its_layers(tmp_path):
    packed_model("csr").save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path)
    assert len(packed_layers(base)) == 21
    base.save_pretrained(tmp_path / "base")
    headed = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert len(packed_layers(headed)) == 21


def packed_elsewhere(model: nn.Module, folder: Path) -> nn.Module:
    """Pack a pruned model in one layout, save it, and load it again."""
    th.prune(model, "magnitude", density=0.5, progress=False)
    th.pack(model, batch=1, candidates="bitmask", repeats=1, gain=0, show=False)
    model.save_pretrained(folder)
    return load(folder)


def test_linear_layers_of_a_models_own_class_come_back_packed(tmp_path):
    config = FalconConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    model = FalconForCausalLM(config).eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*packed weights are loaded dense")
        again = packed_elsewhere(model, tmp_path / "packed").eval()
    assert "transformer.h.0.self_attention.query_key_value" in packed_layers(model)
    assert packed_layers(again).keys() == packed_layers(model).keys()
    assert torch.equal(model(IDS).logits, again(IDS).logits)


def test_weights_that_come_back_dense_are_named(tmp_path, monkeypatch):
    # As if the class computed something else in the version that loads it.
    monkeypatch.setattr("thresher.run.files.loader.computes_as", lambda layer, base: False)
    with pytest.warns(UserWarning, match=r"14 of 14 packed weights are loaded dense: 'model.*Line"):
        again = packed_elsewhere(tiny_llama(layers=2), tmp_path / "packed")
    assert not packed_layers(again)


def test_a_packed_head_is_no_longer_tied(tmp_path):
    model = packed_model("bitmask")
    head = model.lm_head
    weight = head.weight.detach() * (torch.rand(head.weight.shape) < 0.3)
    model.set_submodule("lm_head", PackedLinear(Layout.named("bitmask").from_dense(weight)))
    record_layouts(model)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    x = torch.randn(3, 64).bfloat16()
    assert torch.equal(again.lm_head(x), model.lm_head(x))
    assert not torch.equal(again.lm_head.layout.to_dense(), again.model.embed_tokens.weight)
    with torch.no_grad():
        again(IDS)


def test_another_dtype_casts_the_values(tmp_path):
    packed_model("bitmask").save_pretrained(tmp_path)
    wide = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    layers = packed_layers(wide)
    assert {layer.layout.dtype for layer in layers.values()} == {torch.float32}
    wide(IDS)


class _NoDenseWeights(TorchDispatchMode):
    """Fails when an operation returns a floating-point tensor of a packed weight's shape."""

    def __init__(self, shapes: set[tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes = shapes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                dense = tuple(tensor.shape) in self.shapes and not tensor.is_meta
                assert not dense, f"{func} made a dense {tuple(tensor.shape)}"
        return out


def test_no_weight_is_ever_dense(tmp_path, monkeypatch):
    model = packed_model("csr", layers=1, intermediate_size=96, vocab_size=200)
    shapes = {layer.layout.shape for layer in packed_layers(model).values()}
    watch = _NoDenseWeights(shapes)
    with pytest.raises(AssertionError, match="made a dense"), watch:
        torch.zeros(next(iter(shapes)))
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # all in the thread that is watched
    with torch.no_grad(), watch:
        model.save_pretrained(tmp_path)
        AutoModelForCausalLM.from_pretrained(tmp_path)(IDS)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory map of Linux")
def test_no_file_stays_mapped(tmp_path):
    """A mapped file that is changed or cut short would change the model, or end the process."""
    packed_model("bitmask").save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert packed_layers(again)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


DAMAGED = [
    ("bitmask", "bitmask", lambda t: t ^ 1),
    ("bitmask", "values", lambda t: t[:-1].clone()),
    ("n:m", "indices", lambda t: t * 0),
    ("csr", "indices", lambda t: t.int().flip(0).to(torch.uint16)),
    ("csr", "row_starts", lambda t: t + 1),
    ("csr", "row_starts", lambda t: None),
    ("fan-in", "indices", lambda t: t.to(torch.int64)),
    ("blocks", "places", lambda t: (t.int() + 1000).to(torch.uint16)),
    ("shrunk", "columns", lambda t: t + 1000),
    ("group-sparse-4bit", "zeros", lambda t: t + 16),
]


@pytest.mark.parametrize(("layout", "tensor", "change"), DAMAGED)
def test_damaged_buffers_are_refused_by_name(layout, tensor, change, tmp_path):
    packed_model(layout).save_pretrained(tmp_path)
    name = f"model.layers.1.mlp.up_proj.weight_{tensor}"
    tensors = load_file(tmp_path / "thresher-00000.safetensors")
    changed = change(tensors.pop(name))
    if changed is not None:
        tensors[name] = changed
    save_file(tensors, tmp_path / "thresher-00000.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"layers\.1\.mlp\.up_proj.*{tensor}"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_damaged_shapes_are_refused_by_name(tmp_path):
    packed_model("csr").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "thresher-00000.safetensors")
    name = "model.layers.1.mlp.up_proj.weight_shape"
    for wrong, message in (([64, 64], "expects"), ([128, -64], "no shape"), ([8192], "no shape")):
        damaged = tensors | {name: torch.tensor(wrong)}
        save_file(damaged, tmp_path / "thresher-00000.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=rf"up_proj.*({message}|row_starts)"):
            AutoModelForCausalLM.from_pretrained(tmp_path)


def test_unknown_layouts_and_damaged_configurations_are_refused(tmp_path):
    packed_model("csr").save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for change, message in (({"layout": "theirs"}, "import the file"), ({"weights": 3}, "damaged")):
        layouts = [config["quantization_config"]["layouts"][0] | change]
        wrong = config["quantization_config"] | {"layouts": layouts}
        file.write_text(json.dumps(config | {"quantization_config": wrong}))
        with pytest.raises(CheckpointError, match=message):
            AutoModelForCausalLM.from_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=message):
            Checkpoint(tmp_path).tensor("model.layers.1.mlp.up_proj.weight")


MEASURE = """
import sys
import torch, thresher
from transformers import AutoModelForCausalLM, LlamaForCausalLM
import thresher.run.files.loader
def memory(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) * 1024
before = memory("VmRSS")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
with torch.no_grad():
    model(torch.arange(16)[None])
print(memory("VmHWM") - before)
"""


@pytest.mark.assets
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from Linux")
def test_smollm2_runs_in_its_packed_size(tmp_path):
    from thresher.assets.models import smollm2

    model = AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.bfloat16)
    th.prune(model, "magnitude", density=0.5, pattern="unstructured", progress=False)
    fast = th.pack(model, (1,), candidates=["bitmask"], repeats=1, gain=0, show=False)
    assert len(packed_layers(fast)) == 210
    fast.save_pretrained(tmp_path)
    size = (tmp_path / "thresher-00000.safetensors").stat().st_size
    used = int(warm.run("-c", MEASURE, tmp_path).stdout.split()[-1])
    assert used < size + 200e6, (used, size)
