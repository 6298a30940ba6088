"""Faults that users of other libraries have reported, replayed here."""

from __future__ import annotations

import json

import pytest
import torch
from model_folders import save_folder, tiny_llama
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import thresher as th
from thresher.core.errors import CheckpointError, DataError, LayerError, OptionError
from thresher.parts.limits import fitting_length
from thresher.prune.disk import DiskOptions, prune_folder
from thresher.prune.memory import as_recipe
from thresher.run.layouts import Bitmask
from thresher.run.packed.linear import PackedLinear

MAGNITUDE = as_recipe("magnitude").with_options(0.5)
WANDA = as_recipe("wanda").with_options(0.5)


def windows(count=4, length=32):
    return torch.randint(0, 256, (count, length), generator=torch.Generator().manual_seed(0))


def test_the_same_tokens_in_windows_of_another_length_are_other_data(tmp_path):
    """After ModelCloud/GPTQModel PR 3057: a run resumed under another calibration."""
    source = save_folder(tiny_llama(layers=1), tmp_path / "model")
    prune_folder(source, tmp_path / "out", WANDA, windows(4, 32))
    with pytest.raises(OptionError, match="not of this run"):
        prune_folder(source, tmp_path / "out", WANDA, windows(4, 32).reshape(8, 16))


def test_evaluation_leaves_dropout_off_and_the_mode_as_it_was():
    """After karpathy/nanoGPT PR 240."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 256, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.5, embd_pdrop=0.5)).train()
    model.transformer.h[0].eval()
    assert th.perplexity(model, windows(2)) == th.perplexity(model, windows(2))
    found = th.compare(model, model, windows(2))
    assert (found.kl, found.js, found.top1_agreement) == (0, 0, 1)
    assert model.training
    assert not model.transformer.h[0].training


@pytest.mark.parametrize("where", ["embed_tokens", "layers.0.mlp.up_proj", "norm"])
def test_a_conversion_that_would_overflow_is_refused(where, tmp_path):
    """After AutoAWQ PR 532: bfloat16 weights beyond float16 became infinite."""
    model = tiny_llama(layers=1)
    with torch.no_grad():
        model.get_parameter(f"model.{where}.weight").flatten()[0] = 1e5
    source = save_folder(model, tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"beyond the largest that torch\.float16 holds"):
        prune_folder(source, tmp_path / "out", MAGNITUDE, None, DiskOptions(dtype=torch.float16))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", ["norm", "embed", "layers.1.mlp.down_proj"])
def test_a_folder_of_two_dtypes_runs_as_transformers_runs_it(word, tmp_path):
    """After deepseek-ai/DeepSeek-V3 1002: norms in float32 among weights in bfloat16."""
    source = save_folder(tiny_llama(layers=2).bfloat16(), tmp_path / "model")
    stored = load_file(source / "model.safetensors")
    # Copies: early versions of safetensors map the file that is about to be written.
    mixed = {n: t.float() * 1.001 if word in n else t.clone() for n, t in stored.items()}
    save_file(mixed, source / "model.safetensors", metadata={"format": "pt"})
    exact = DiskOptions(precision=torch.bfloat16)
    prune_folder(source, tmp_path / "out", WANDA, windows(), exact)
    model = AutoModelForCausalLM.from_pretrained(source)
    th.prune(model, WANDA, windows(), precision=torch.bfloat16, progress=False)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter != 0, model.get_parameter(name) != 0), name
    files = (tmp_path / "out").glob("thresher-*.safetensors")
    written = {name: tensor for file in files for name, tensor in load_file(file).items()}
    for name in mixed.keys() & written.keys():
        assert torch.equal(written[name], mixed[name]), name


def test_positions_that_padding_takes_are_not_counted():
    """After huggingface/transformers 14243: RoBERTa has 514 positions, texts at most 512."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    sizes = {"vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = RobertaForMaskedLM(
        RobertaConfig(**sizes, intermediate_size=32, max_position_embeddings=34, pad_token_id=1)
    )
    assert fitting_length(model, 1024) == 32
    th.prune(model, "wanda", windows(2, 32).clamp(min=2), density=0.5, progress=False)


def test_an_adapter_beside_a_model_is_named(tmp_path):
    """After dropbox/hqq 151."""
    source = save_folder(tiny_llama(layers=1), tmp_path / "model")
    (source / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(CheckpointError, match="adapter beside its model"):
        prune_folder(source, tmp_path / "out", MAGNITUDE, None)


def test_packed_layers_run_under_autocast_as_dense_ones_do():
    """After pytorch/ao 568."""
    weight = torch.randn(8, 8).bfloat16()
    packed = PackedLinear(Bitmask.from_dense(weight))
    x = torch.randn(2, 8)
    with pytest.raises(LayerError, match="convert one of them"):
        packed(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert packed(x).dtype == torch.bfloat16


def test_a_model_that_needs_more_than_token_ids_is_told_so(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"vocab_size": 256, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1}
    source = save_folder(
        T5ForConditionalGeneration(T5Config(**sizes, num_heads=2)), tmp_path / "model"
    )
    with pytest.raises(DataError, match="does not run on token ids alone"):
        prune_folder(source, tmp_path / "out", WANDA, windows())


class Aliased(torch.nn.Module):
    """Calls its layers through a Python list, as MaskFormer's decoder does."""

    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
        self.listed, self.pair, self.named = [self.a], (self.b, [self.a]), {"b": self.b}

    def forward(self, x):
        return self.pair[0](self.listed[0](x)) + self.named["b"](self.pair[1][0](x))


def test_packed_layers_are_used_wherever_the_model_keeps_them():
    model = Aliased()
    th.prune(model, "magnitude", density=0.1, progress=False)
    x = torch.randn(3, 64)
    with torch.no_grad():
        before = model(x)
        th.pack(model, batch=1, candidates="csr", repeats=1, gain=1e-9, show=False)
        torch.testing.assert_close(model(x), before)
    held = (model.listed[0], model.pair[0], model.pair[1][0], model.named["b"])
    assert [type(layer) for layer in held] == [PackedLinear] * 4
    assert model.listed[0] is model.a


@pytest.mark.parametrize("kind", ["Mixtral", "Jamba", "GraniteMoe", "Qwen2Moe"])
def test_routers_stay_dense_however_they_are_built(kind):
    import transformers

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    number = "num_local_experts" if kind in ("Mixtral", "GraniteMoe") else "num_experts"
    sizes |= {number: 4, "use_mamba_kernels": False} if kind == "Jamba" else {number: 4}
    if kind == "Jamba":
        sizes |= {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_period": 2}
    config = getattr(transformers, f"{kind}Config")(**sizes)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    record = th.prune(model, "magnitude", density=0.5, progress=False)
    assert record.coverage["kept"]["router"] >= (1 if kind == "Jamba" else 2) * 4 * 32
    assert not [r.name for r in record.layers if r.name.split(".")[-1] in ("router", "gate")]


class Mixed(torch.nn.Module):
    """Chooses among experts with a linear layer, as most do."""

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {})()
        self.config.num_experts = 4
        self.gate, self.gate_proj = torch.nn.Linear(16, 4), torch.nn.Linear(16, 4)
        self.experts = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(4))


def test_a_router_is_pruned_where_it_is_included():
    for include in ((), ("gate",)):
        record = th.prune(Mixed(), "magnitude", density=0.5, include=include, progress=False)
        names = [layer.name for layer in record.layers]
        assert ("gate" in names) == bool(include)
        assert "gate_proj" in names
