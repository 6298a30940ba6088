"""Four bits that were calibrated: folders of `thresher pack --bits 4 --text`."""

from __future__ import annotations

import pytest
import torch
from model_folders import byte_tokenizer, save_folder, tiny_llama
from test_cli import run

import thresher as th
from thresher.run.engine import loading
from thresher.run.engine.gguf.file import GGUFFile
from thresher.run.files.checkpoint import Checkpoint

LENGTH = 64


def pack(folder, out, *options, code=0):
    return run("pack", folder, "--out", out, *options, code=code)


CALIBRATED = ("--bits", 4, "--windows", 8, "--length", LENGTH)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A folder of a model whose matrices have several groups, and are no whole number of them."""
    model = tiny_llama(hidden=80, num_attention_heads=5, num_key_value_heads=1)
    return save_folder(model.eval(), tmp_path_factory.mktemp("wide") / "model")


@pytest.fixture(scope="module")
def packed(wide, book, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "fast"
    pack(wide, out, "--text", book, *CALIBRATED)
    return out


def off(engine, folder, ids):
    """Return how far an engine's hidden work is from the float32 model, by its logits."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        own = model(input_ids=ids[None]).logits[0]
    return float((engine.logits(ids) - own).norm() / own.norm())


def test_the_model_is_nearer_than_by_rounding_to_nearest(wide, packed, book):
    text = book.read_text()[-2000:]
    ids = torch.tensor(byte_tokenizer()(text)["input_ids"][:300])
    engine, plain = th.Engine(packed), th.Engine(wide, 4)
    assert engine._loaded.data.layers[1].qkv.form == "int4"
    assert engine._loaded.data.embedding.form == "int8"
    assert engine.context == plain.context
    assert engine._loaded.ends == plain._loaded.ends
    assert off(engine, wide, ids) < 0.9 * off(plain, wide, ids)
    assert engine.generate("A river", max_new_tokens=5) is not None


def test_the_engine_is_held_against_the_rounded_model(wide, book, tmp_path, monkeypatch):
    """From which it differs by the rounding of inputs alone."""
    monkeypatch.setattr(loading, "_APART", 0.03)
    pack(wide, tmp_path / "fast", "--text", book, *CALIBRATED)
    monkeypatch.setattr(loading, "_APART", 1e-4)
    said = pack(wide, tmp_path / "again", "--text", book, *CALIBRATED, code=1)
    assert "does something that the engine does not know" in said


def test_the_same_command_gives_the_same_bytes(wide, packed, book, tmp_path):
    said = pack(wide, tmp_path / "again", "--calibration", book, *CALIBRATED)
    assert "rounded model.layers.0" in said
    for name in ("engine.json", "engine.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (packed / name).read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["again"]


def test_zeros_of_a_sparse_folder_stay(wide, book, tmp_path):
    options = ("--windows", 8, "--length", LENGTH, "--calibration", book, "--no-evaluate")
    run("prune", wide, "--sparsity", 0.5, "--out", tmp_path / "sparse", *options)
    pack(tmp_path / "sparse", tmp_path / "fast", "--text", book, *CALIBRATED)
    held = th.Engine(tmp_path / "fast")._loaded.data.layers[0].out
    dense = torch.empty(held.rows, held.columns)
    held.build().dequantize(dense.numpy())
    weight = Checkpoint(tmp_path / "sparse").tensor("model.layers.0.self_attn.o_proj.weight")
    assert 0.3 < float((weight == 0).float().mean()) < 0.7
    assert bool((dense[weight == 0] == 0).all())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of a model whose rows are whole groups, and whose query heads are turned in GGUF."""
    model = tiny_llama(hidden=64, num_attention_heads=4, num_key_value_heads=2)
    return save_folder(model.eval(), tmp_path_factory.mktemp("whole") / "model")


GGUF = ("--type", "q4_1", "--windows", 8, "--length", LENGTH)


def test_gguf_files_have_the_codes_of_the_packed_folder(whole, book, tmp_path):
    pack(whole, tmp_path / "fast", "--text", book, *CALIBRATED)
    run("export", whole, tmp_path / "model.gguf", "--text", book, *GGUF)
    run("export", whole, tmp_path / "nearest.gguf", "--type", "q4_1")
    ids = torch.tensor(byte_tokenizer()(book.read_text()[-2000:])["input_ids"][:300])
    ours, file = th.Engine(tmp_path / "fast"), th.Engine(tmp_path / "model.gguf")
    assert file._loaded.data.layers[1].qkv.form == "int4"
    assert torch.equal(file.logits(ids), ours.logits(ids))
    nearest = th.Engine(tmp_path / "nearest.gguf")
    assert off(file, whole, ids) < 0.9 * off(nearest, whole, ids)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["fast", "model.gguf", "nearest.gguf"]


def test_gguf_files_of_odd_rows_are_floating_point_there(wide, book, tmp_path):
    run("export", wide, tmp_path / "model.gguf", "--text", book, *GGUF)
    run("export", wide, tmp_path / "nearest.gguf", "--type", "q4_1")
    file, nearest = (GGUFFile(tmp_path / f"{name}.gguf") for name in ("model", "nearest"))
    # 80 columns are no whole groups, and 160 are.
    assert file.matrix("blk.0.attn_q.weight").form == "float16"
    assert file.matrix("blk.0.ffn_down.weight").form == "int4"
    changed = [x.matrix("blk.0.ffn_down.weight").codes for x in (file, nearest)]
    assert not torch.equal(*changed)


def test_zeros_of_a_sparse_folder_stay_in_gguf_files(whole, book, tmp_path):
    options = ("--windows", 8, "--length", LENGTH, "--calibration", book, "--no-evaluate")
    run("prune", whole, "--sparsity", 0.5, "--out", tmp_path / "sparse", *options)
    run("export", tmp_path / "sparse", tmp_path / "model.gguf", "--text", book, *GGUF)
    dense = GGUFFile(tmp_path / "model.gguf").matrix("blk.0.attn_output.weight").dense()
    weight = Checkpoint(tmp_path / "sparse").tensor("model.layers.0.self_attn.o_proj.weight")
    assert 0.3 < float((weight == 0).float().mean()) < 0.7
    assert bool((dense[weight == 0] == 0).all())


@pytest.mark.parametrize(
    "more", [("plain", "--type", "q4_1"), ("model.gguf", "--type", "q4_0"), ("model.gguf",)]
)
def test_codes_of_other_files_are_not_calibrated(more, whole, book, tmp_path):
    out, *options = more
    said = run("export", whole, tmp_path / out, "--text", book, *options, code=1)
    assert "calibrates GGUF files of --type q4_1" in said
    assert not list(tmp_path.iterdir())


def test_what_gguf_cannot_hold_is_refused_before_the_rounding(book, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=256, n_embd=32, n_layer=2, n_head=2, n_positions=128)
    folder = save_folder(GPT2LMHeadModel(config), tmp_path / "gpt2")
    said = run("export", folder, tmp_path / "a.gguf", "--text", book, *GGUF, code=1)
    assert "GGUF files are not written for" in said
    assert "%" not in said
    (tmp_path / "a.gguf").touch()
    assert "exists" in run("export", folder, tmp_path / "a.gguf", "--text", book, *GGUF, code=1)


def test_what_is_rounded_to_nearest_is_said(wide, book, tmp_path):
    said = pack(wide, tmp_path / "a", "--bits", 4)
    assert "nearest of 4 bits; --text FILE" in said
    said = pack(wide, tmp_path / "b", "--bits", 8, "--text", book)
    assert "nearest of 8 bits, which no text would make better" in said
    assert "nearest" not in pack(wide, tmp_path / "c")


def test_bad_input(wide, packed, book, tmp_path):
    out = tmp_path / "out"
    said = pack(wide, out, "--text", book, code=1)
    assert "without --bits they keep 16 bits" in said
    said = pack(packed, out, "--text", book, *CALIBRATED, code=1)
    assert "not a folder of one" in said
    short = tmp_path / "short.txt"
    short.write_text("too short")
    said = pack(wide, out, "--text", short, *CALIBRATED, code=1)
    assert "fewer than one window of 64" in said
    assert sorted(file.name for file in tmp_path.iterdir()) == ["short.txt"]


def test_architectures_that_the_engine_does_not_run_are_named_before_the_work(book, tmp_path):
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=256, hidden_size=32, n_layer=2, n_head=2)
    folder = save_folder(BloomForCausalLM(config), tmp_path / "bloom")
    assert "'bloom'" in pack(folder, tmp_path / "out", "--text", book, *CALIBRATED, code=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bloom"]


def test_layers_that_are_stored_the_other_way_round_are_calibrated(book, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=256, n_embd=32, n_layer=2, n_head=2, n_positions=128)
    model = GPT2LMHeadModel(config).eval()
    folder = save_folder(model, tmp_path / "gpt2")
    pack(folder, tmp_path / "fast", "--text", book, *CALIBRATED)
    ids = torch.arange(3, 60)
    with torch.no_grad():
        dense = model(input_ids=ids[None]).logits[0]
    distances = [
        float((engine.logits(ids) - dense).norm() / dense.norm())
        for engine in (th.Engine(tmp_path / "fast"), th.Engine(model, 4))
    ]
    assert 0 < distances[0] < 1.2 * distances[1] < 0.2
