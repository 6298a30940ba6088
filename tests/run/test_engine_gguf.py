"""GGUF files in the engine: the file's own numbers, and logits beside transformers' reading."""

from __future__ import annotations

import random
import struct
import sys

import gguf
import numpy as np
import pytest
import torch

import thresher as th
from thresher.core.errors import (
    CheckpointError,
    LayerError,
    MissingPackageError,
    NumericalError,
    ThresherError,
)
from thresher.run.engine.gguf import GGUFFile

VOCABULARY, HIDDEN, HEADS, KV_HEADS, WIDE, LAYERS = 96, 64, 4, 2, 96, 2
#: Of heads; transformers takes those of qwen3 for the default of its configuration.
HEAD_DIMS = {"qwen3": 128}


def shapes(family):
    """Return the matrices of a layer by the names that GGUF gives them."""
    head_dim = HEAD_DIMS.get(family, HIDDEN // HEADS)
    return {
        "attn_q": (HEADS * head_dim, HIDDEN),
        "attn_k": (KV_HEADS * head_dim, HIDDEN),
        "attn_v": (KV_HEADS * head_dim, HIDDEN),
        "attn_output": (HIDDEN, HEADS * head_dim),
        "ffn_gate": (WIDE, HIDDEN),
        "ffn_up": (WIDE, HIDDEN),
        "ffn_down": (HIDDEN, WIDE),
    }


TYPES = gguf.GGMLQuantizationType


def random_tensors(family, seed=0):
    """Return a model's tensors by the names that GGUF gives them, in float32."""
    generator = np.random.default_rng(seed)
    tensors = {
        "token_embd.weight": generator.normal(size=(VOCABULARY, HIDDEN)) * 0.3,
        "output_norm.weight": 1 + generator.normal(size=HIDDEN) * 0.1,
        "output.weight": generator.normal(size=(VOCABULARY, HIDDEN)) * 0.3,
    }
    for i in range(LAYERS):
        for name, (rows, columns) in shapes(family).items():
            tensors[f"blk.{i}.{name}.weight"] = generator.normal(size=(rows, columns)) * 0.2
            if family == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                tensors[f"blk.{i}.{name}.bias"] = generator.normal(size=rows) * 0.2
        norms = {"attn_norm": HIDDEN, "ffn_norm": HIDDEN}
        if family == "qwen3":
            norms |= dict.fromkeys(["attn_q_norm", "attn_k_norm"], HEAD_DIMS["qwen3"])
        for name, size in norms.items():
            tensors[f"blk.{i}.{name}.weight"] = 1 + generator.normal(size=size) * 0.1
    return {name: values.astype(np.float32) for name, values in tensors.items()}


def write(path, family="llama", kind=TYPES.F32, tensors=None, kinds=None, said=None):
    """Write a model file with the package of llama.cpp."""
    writer = gguf.GGUFWriter(path, family)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCABULARY)
    writer.add_key_length(HEAD_DIMS.get(family, HIDDEN // HEADS))
    writer.add_value_length(HEAD_DIMS.get(family, HIDDEN // HEADS))
    writer.add_uint32("tokenizer.ggml.eos_token_id", 2)
    writer.add_array("tokenizer.ggml.tokens", [f"t{i}" for i in range(2000)])
    for key, value in (said or {}).items():
        kinds_of_values = {str: writer.add_string, float: writer.add_float32}
        kinds_of_values.get(type(value), writer.add_uint32)(key, value)
    for name, values in (tensors or random_tensors(family)).items():
        matrix = values.ndim == 2
        one = (kinds or {}).get(name.split(".")[-2], kind) if matrix else TYPES.F32
        writer.add_tensor(name, gguf.quantize(values, one), raw_dtype=one)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def reference(path, ids):
    """Return what transformers makes of the file in float32."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    with torch.no_grad():
        return model.eval()(input_ids=ids[None]).logits[0]


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


IDS = torch.randint(3, VOCABULARY, (40,), generator=torch.Generator().manual_seed(0))
#: Codes and inputs of eight bits are rounded, floats are not.
KINDS = {"F32": 2e-5, "F16": 2e-5, "BF16": 2e-5, "Q8_0": 0.05, "Q4_0": 0.05, "Q4_1": 0.05}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_file_in_transformers(tmp_path, family, kind):
    path = write(tmp_path / "model.gguf", family, TYPES[kind])
    assert distance(th.Engine(path).logits(IDS), reference(path, IDS)) < KINDS[kind]


@pytest.mark.parametrize("kind", [*KINDS, "Q5_0", "Q5_1"])
def test_matrices_are_the_files_numbers(tmp_path, kind):
    path = write(tmp_path / "model.gguf", kind=TYPES[kind])
    name = "blk.1.ffn_up.weight"
    found = GGUFFile(path).matrix(name).dense().numpy()
    stored = next(t for t in gguf.GGUFReader(path).tensors if t.name == name)
    expected = gguf.dequantize(stored.data, stored.tensor_type)
    if kind in KINDS:
        assert np.array_equal(found, expected)
    else:
        assert 0 < np.abs(found - expected).max() < np.abs(expected).max() / 100


def test_types_that_differ_within_a_layer_are_not_rounded(tmp_path):
    kinds = {"attn_q": TYPES.Q4_0, "attn_k": TYPES.Q4_1, "attn_v": TYPES.Q8_0}
    kinds |= {"ffn_gate": TYPES.F16, "ffn_up": TYPES.Q4_0}
    path = write(tmp_path / "model.gguf", kind=TYPES.Q4_1, kinds=kinds)
    assert distance(th.Engine(path).logits(IDS), reference(path, IDS)) < 0.05


def test_the_head_is_the_embedding_where_the_file_has_none(tmp_path):
    tensors = random_tensors("llama")
    del tensors["output.weight"]
    path = write(tmp_path / "model.gguf", tensors=tensors)
    assert distance(th.Engine(path).logits(IDS), reference(path, IDS)) < 2e-5


def test_factors_of_rotary_positions_are_kept_to(tmp_path):
    tensors = random_tensors("llama")
    factors = np.linspace(1, 8, HIDDEN // HEADS // 2, dtype=np.float32)
    path = write(tmp_path / "scaled.gguf", tensors=tensors | {"rope_freqs.weight": factors})
    plain = write(tmp_path / "plain.gguf", tensors=tensors)
    engine, model = th.Engine(path), th.Engine(plain)
    found = engine._loaded.data.frequencies
    assert np.allclose(found * factors, model._loaded.data.frequencies, rtol=1e-6)
    assert distance(engine.logits(IDS), model.logits(IDS)) > 0.01


def test_positions_are_scaled_and_windows_kept_to(tmp_path):
    said = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    scaled = th.Engine(write(tmp_path / "scaled.gguf", said=said))
    windowed = th.Engine(
        write(tmp_path / "window.gguf", said={"llama.attention.sliding_window": 9})
    )
    plain = th.Engine(write(tmp_path / "plain.gguf"))
    data = plain._loaded.data
    assert np.allclose(scaled._loaded.data.frequencies * 4, data.frequencies, rtol=1e-6)
    assert [layer.window for layer in windowed._loaded.data.layers] == [9, 9]
    found, expected = windowed.logits(IDS), plain.logits(IDS)
    assert distance(found[:9], expected[:9]) < 1e-6 < distance(found[9:], expected[9:])


@pytest.mark.parametrize("bits", [8, 4])
def test_what_takes_more_bits_is_rounded(tmp_path, bits):
    path = write(tmp_path / "model.gguf", kind=TYPES.F16, kinds={"ffn_down": TYPES.Q4_0})
    engine = th.Engine(path, bits)
    layer = engine._loaded.data.layers[0]
    assert layer.qkv.form == f"int{bits}"
    assert (layer.down.form, layer.down.minimums) == ("int4", None)
    assert engine._loaded.data.embedding.form == "int8"
    assert distance(engine.logits(IDS), reference(path, IDS)) < (0.05 if bits == 8 else 0.4)


def test_tokens_end_where_the_file_says(tmp_path):
    path = write(tmp_path / "model.gguf", said={"tokenizer.ggml.eot_token_id": 7})
    engine = th.Engine(path)
    assert engine.context == 128
    assert engine._loaded.ends == {2, 7}


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"llama.expert_count": 8}, "mixtures of experts"),
        ({"llama.rope.scaling.type": "yarn"}, "'yarn'"),
        ({"llama.rope.dimension_count": 8}, "8 are turned"),
    ],
)
def test_what_the_engine_does_not_run_is_named(tmp_path, said, problem):
    with pytest.raises(LayerError, match=problem):
        th.Engine(write(tmp_path / "model.gguf", said=said))


def test_windows_of_other_families_are_refused(tmp_path):
    with pytest.raises(LayerError, match="a sliding window of 9 tokens"):
        th.Engine(write(tmp_path / "m.gguf", "qwen2", said={"qwen2.attention.sliding_window": 9}))
    th.Engine(write(tmp_path / "n.gguf", "qwen2", said={"qwen2.attention.sliding_window": 128}))


def test_other_architectures_and_tensors_are_named(tmp_path):
    with pytest.raises(LayerError, match="'phi3'"):
        th.Engine(write(tmp_path / "phi.gguf", "phi3"))
    tensors = random_tensors("llama") | {"blk.0.extra.weight": np.ones((2, 2), np.float32)}
    with pytest.raises(LayerError, match=r"'blk\.0\.extra\.weight'"):
        th.Engine(write(tmp_path / "more.gguf", tensors=tensors))
    del tensors["blk.0.extra.weight"], tensors["blk.1.ffn_up.weight"]
    with pytest.raises(CheckpointError, match=r"no tensor 'blk\.1\.ffn_up\.weight'"):
        th.Engine(write(tmp_path / "fewer.gguf", tensors=tensors))
    tensors["blk.1.ffn_up.weight"] = np.ones((WIDE, HIDDEN * 2), np.float32)
    with pytest.raises(CheckpointError, match="is 96 x 128, not 96 x 64"):
        th.Engine(write(tmp_path / "wide.gguf", tensors=tensors))


@pytest.mark.parametrize("kind", ["F32", "Q4_1"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, kind):
    tensors = random_tensors("llama")
    tensors["blk.1.ffn_up.weight"][3, 5] = np.inf
    with pytest.raises(NumericalError, match=r"blk\.1\.ffn_up\.weight"):
        th.Engine(write(tmp_path / "model.gguf", kind=TYPES[kind], tensors=tensors))


def test_what_is_not_installed_is_named_when_it_is_needed(tmp_path, monkeypatch):
    plain = write(tmp_path / "plain.gguf", kind=TYPES.Q4_0)
    other = write(tmp_path / "other.gguf", kind=TYPES.Q5_0)
    monkeypatch.setitem(sys.modules, "gguf", None)
    engine = th.Engine(plain)
    assert len(list(engine.tokens(IDS, 3))) <= 3
    for needs in (lambda: engine.stream("text"), lambda: th.Engine(other)):
        with pytest.raises(MissingPackageError, match="needs gguf"):
            needs()


def test_files_that_are_none(tmp_path):
    path = tmp_path / "model.gguf"
    with pytest.raises(CheckpointError, match=r"model\.gguf cannot be read"):
        th.Engine(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be read"):
        th.Engine(path)
    path.write_bytes(b"GGML" + bytes(100))
    with pytest.raises(CheckpointError, match="begins with b'GGML'"):
        th.Engine(path)
    path.write_bytes(b"GGUF" + struct.pack(">I", 3) + bytes(100))
    with pytest.raises(CheckpointError, match="version 50331648"):
        th.Engine(path)


def test_files_cut_off_anywhere_end_in_an_error(tmp_path):
    whole = write(tmp_path / "model.gguf", kind=TYPES.Q4_0).read_bytes()
    cut = tmp_path / "cut.gguf"
    chosen = random.Random(0)
    for size in [len(whole) - 1, *(chosen.randrange(1, len(whole)) for _ in range(60))]:
        cut.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="ends"):
            th.Engine(cut)


def test_changed_bytes_end_in_an_error_or_a_model(tmp_path):
    """In particular in no crash, no endless loop and no memory for sizes that are made up."""
    whole = write(tmp_path / "model.gguf", kind=TYPES.Q4_0).read_bytes()
    head = whole.index(b"ffn_down") + 400
    changed = tmp_path / "changed.gguf"
    chosen = random.Random(1)
    refused = 0
    for _ in range(300):
        held = bytearray(whole)
        for _ in range(chosen.choice([1, 1, 3])):
            place = chosen.randrange(4, head)
            held[place : place + 1] = chosen.choice([b"\x00", b"\xff", chosen.randbytes(1)])
        changed.write_bytes(held)
        try:
            th.Engine(changed)
        except ThresherError:
            refused += 1
    assert refused > 100
