"""GGUF files that are written: read back bit for bit, by other readers, and by llama.cpp."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from model_folders import byte_tokenizer, save_folder, tiny_llama
from safetensors.torch import load_file, save_file
from small_models import llama
from test_cli import run

import thresher as th
from thresher.core.errors import CheckpointError, LayerError, NumericalError, OptionError
from thresher.run.engine.gguf import GGUFFile
from thresher.run.engine.gguf.names import MODEL, PARTS, halves, pairs
from thresher.run.engine.gguf.tokenizer import vocabulary_of
from thresher.run.engine.gguf.write import TYPES, export_gguf

VOCABULARY = 260
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96}
TEXT = "Rivers carry 1024 stones, don't they?  They do;\n\n\tand sand. Größe, naïve, 石."


def tokenizer(**options):
    """Return a byte-level tokenizer with a few merges, tokens with a meaning, and a template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("e", "r"), ("Ġ", "t")]
    every = [*alphabet, *("".join(pair) for pair in merges)]
    inner = Tokenizer(models.BPE({token: i for i, token in enumerate(every)}, merges))
    inner.pre_tokenizer = options.pop("parting", pre_tokenizers.ByteLevel(add_prefix_space=False))
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<|end|>", special=True)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|end|>", chat_template="{{ messages }}", **options
    )


def families():
    """Return models of the architectures of GGUF, of widths that are whole blocks."""
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 16, "rope_theta": 10000.0}
    options = {
        "llama": {},
        "tied": {"tied": True},
        "biases": {"attention_bias": True, "mlp_bias": True},
        "scaled": {"rope_parameters": rope},
        "linear": {
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
        },
    }
    found = {name: llama(**(SMALL | changes)) for name, changes in options.items()}
    others = {"qwen2": ("Qwen2", {}), "qwen3": ("Qwen3", {"head_dim": 128})}
    others |= {"mistral": ("Mistral", {"sliding_window": None})}
    return found | {name: of(family, **changes) for name, (family, changes) in others.items()}


def of(family, **changes):
    """Return a model of a family of transformers with random weights."""
    import transformers

    torch.manual_seed(0)
    options = SMALL | {"num_hidden_layers": 3, "max_position_embeddings": 64} | changes
    options |= {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 258}
    config = getattr(transformers, f"{family}Config")(**options)
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of those models, with biases that are not zero."""
    place, found = tmp_path_factory.mktemp("models"), {}
    for name, model in families().items():
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
        model.save_pretrained(place / name)
        tokenizer().save_pretrained(place / name)
        found[name] = place / name
    return found


NAMES = ["llama", "tied", "biases", "scaled", "linear", "qwen2", "qwen3", "mistral"]


def loaded(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids[None]).logits[0]


def ids_of(model, count=24):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, model.config.vocab_size, (count,), generator=generator)


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


#: How far logits may lie from the float32 model's, for rounding of weights and inputs.
BOUNDS = {"f16": 2e-3, "bf16": 2e-2, "q8_0": 0.05, "q4_1": 0.5, "q4_0": 0.5}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", BOUNDS)
def test_the_engine_runs_the_file_as_the_model(folders, tmp_path, name, kind):
    export_gguf(folders[name], tmp_path / "model.gguf", kind)
    model = loaded(folders[name])
    ids = ids_of(model)
    engine = th.Engine(tmp_path / "model.gguf")
    assert distance(engine.logits(ids), logits(model, ids)) < BOUNDS[kind]
    assert engine.context == model.config.max_position_embeddings


@pytest.mark.parametrize("name", ["llama", "tied", "scaled", "linear", "qwen2", "qwen3"])
@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_1"])
def test_transformers_reads_the_same_model(folders, tmp_path, name, kind):
    """Beside the engine only inputs of products are rounded."""
    import transformers

    path = tmp_path / "model.gguf"
    export_gguf(folders[name], path, kind)
    read = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32
    ).eval()
    if name in ("scaled", "linear"):  # transformers does not read how positions are scaled
        read.model.rotary_emb.inv_freq = loaded(folders[name]).model.rotary_emb.inv_freq
    ids = ids_of(read)
    bound = 2e-3 if kind == "f16" else 0.05
    assert distance(th.Engine(path).logits(ids), logits(read, ids)) < bound


@pytest.mark.parametrize("kind", BOUNDS)
def test_matrices_are_read_back_bit_for_bit(folders, tmp_path, kind):
    path = tmp_path / "model.gguf"
    export_gguf(folders["llama"], path, kind)
    file, weights = GGUFFile(path), loaded(folders["llama"]).state_dict()
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert set(stored) == set(file.shapes)
    for name in ("blk.1.ffn_down.weight", "blk.2.attn_q.weight", "token_embd.weight"):
        found, tensor = file.matrix(name), stored[name]
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(found.dense().numpy(), expected)
        block, _, part = name.removesuffix(".weight").rpartition(".")
        path_of = {**MODEL, **{k: f"model.layers.{block[4:]}.{v}" for k, v in PARTS.items()}}
        own = weights[f"{path_of[part]}.weight"]
        own = pairs(own, 16) if part == "attn_q" else own
        if kind in ("f16", "bf16"):
            dtype = torch.float16 if kind == "f16" else torch.bfloat16
            assert torch.equal(found.dense(), own.to(dtype).float())
        four = kind.startswith("q4") and part != "token_embd"
        assert distance(found.dense(), own) < (0.15 if four else 0.01)
    assert stored["blk.0.attn_norm.weight"].tensor_type == gguf.GGMLQuantizationType.F32


def test_halves_and_pairs_undo_one_another():
    rows = torch.arange(48)
    assert torch.equal(halves(pairs(rows, 8), 8), rows)
    assert pairs(rows, 8)[:4].tolist() == [0, 4, 1, 5]


def test_the_tokenizer_comes_along(folders, tmp_path):
    path = tmp_path / "model.gguf"
    export_gguf(folders["llama"], path)
    read, own = th.Engine(path).tokenizer, tokenizer()
    assert read(TEXT)["input_ids"] == own(TEXT)["input_ids"]
    assert read.decode(read(TEXT)["input_ids"]) == TEXT
    assert read.chat_template == own.chat_template
    assert th.Engine(path)._loaded.ends == th.Engine(folders["llama"])._loaded.ends == {2}
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert tokens[258:] == ["<|end|>", "[PAD259]"]
    assert kinds[257:] == [1, 3, 5]
    assert fields["tokenizer.ggml.merges"].contents() == ["e r", "Ġ t"]
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False


def split(pattern):
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def test_ways_to_part_texts_are_told_apart():
    from tokenizers import pre_tokenizers

    digits = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    ways = {"gpt-2": pre_tokenizers.ByteLevel(False), "smollm": digits, "qwen2": split(QWEN2)}
    for name, parting in ways.items():
        found = vocabulary_of(tokenizer(parting=parting), VOCABULARY, frozenset())
        assert (found.model, found.parting) == ("gpt2", name)
    for parting in (split(r"\w+"), pre_tokenizers.ByteLevel(add_prefix_space=True)):
        with pytest.raises(CheckpointError, match="none of the ways"):
            vocabulary_of(tokenizer(parting=parting), VOCABULARY, frozenset())


def spaced(prepend=True):
    """Return a tokenizer that writes spaces as a character and falls back on bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    mark = "\N{LOWER ONE EIGHTH BLOCK}"
    plain = [mark, *"abcdefghijklmnopqrstuvwxyz.,"]
    merges = [("e", "r"), (mark, "t"), ("t", "h"), ("th", "e"), (mark + "t", "he"), (mark, "the")]
    merges.insert(4, ("h", "e"))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *plain]
    tokens += list(dict.fromkeys("".join(pair) for pair in merges))
    inner = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(tokens)},
            merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    steps = [normalizers.Prepend(mark)] if prepend else []
    inner.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", mark)])
    inner.decoder = decoders.Sequence(
        [decoders.Replace(mark, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("prepend", [True, False])
def test_tokenizers_of_characters(prepend):
    own = spaced(prepend)
    found = vocabulary_of(own, len(own) + 2, frozenset([2]))
    assert (found.model, found.parting, found.space) == ("llama", "default", prepend)
    assert found.kinds[:4] == [2, 3, 3, 6]
    assert found.kinds[-3:] == [1, 5, 5]
    order = sorted(found.tokens, key=lambda token: -found.scores[found.tokens.index(token)])
    mark = "\N{LOWER ONE EIGHTH BLOCK}"
    assert order[:7] == ["er", f"{mark}t", "th", "the", "he", f"{mark}the", order[6]]
    assert found.special == {"bos": 1, "unknown": 0, "eos": 2}


def test_the_engine_exports_sparse_folders(folders, book, tmp_path):
    model = loaded(folders["llama"])
    th.prune(model, "magnitude", density=0.5, progress=False)
    th.save(model, tmp_path / "sparse", tokenizer=tokenizer())
    export_gguf(tmp_path / "sparse", tmp_path / "model.gguf")
    ids = ids_of(model)
    assert distance(th.Engine(tmp_path / "model.gguf").logits(ids), logits(model, ids)) < 2e-3


def test_shrunk_folders_are_exported(folders, book, tmp_path):
    model = loaded(folders["llama"])
    small = th.prune(
        model,
        "structured",
        ["a river carries stones " * 60],
        density=0.8,
        tokenizer=tokenizer(),
        windows=4,
        length=32,
        progress=False,
    )
    th.save(small, tmp_path / "small", tokenizer=tokenizer())
    assert small.config.intermediate_size != 96 or small.config.num_attention_heads != 4
    export_gguf(tmp_path / "small", tmp_path / "model.gguf", "q8_0")
    ids = ids_of(small)
    engine = th.Engine(tmp_path / "model.gguf")
    assert distance(engine.logits(ids), logits(small, ids)) < 0.05


def test_the_command(folders, tmp_path):
    run("export", folders["llama"], tmp_path / "model.gguf", "--type", "q8_0")
    assert "exists" in run("export", folders["llama"], tmp_path / "model.gguf", code=1)
    said = run("export", folders["llama"], tmp_path / "plain", "--type", "q8_0", code=1)
    assert "does not end in .gguf" in said
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]
    assert GGUFFile(tmp_path / "model.gguf").metadata["general.file_type"] == 7
    help_text = run("export", "--help")
    assert all(kind in help_text for kind in TYPES)


def headed(folder):
    """Write a model whose head differs from its embedding, though its configuration ties them."""
    model = tiny_llama(hidden=64)
    generator = torch.Generator().manual_seed(1)
    head = 0.1 * torch.randn(model.lm_head.weight.shape, generator=generator)
    model.lm_head.weight = torch.nn.Parameter(head)
    save_folder(model.eval(), folder)
    assert loaded(folder).lm_head.weight.equal(head)
    return folder


@pytest.mark.parametrize("kind", ["bf16", "q8_0", "q4_1"])
def test_a_head_of_its_own_is_kept_where_the_configuration_ties_it(book, tmp_path, kind):
    folder = headed(tmp_path / "model")
    ids = ids_of(loaded(folder))
    expected = logits(loaded(folder), ids)
    run("export", folder, tmp_path / "model.gguf", "--type", kind)
    assert distance(th.Engine(tmp_path / "model.gguf").logits(ids), expected) < BOUNDS[kind]
    bits = {"q8_0": 8, "q4_1": 4}.get(kind)
    assert distance(th.Engine(folder, bits).logits(ids), expected) < BOUNDS[kind]
    if kind == "q4_1":
        options = ("--text", book, "--windows", 2, "--length", 32)
        run("pack", folder, "--out", tmp_path / "fast", "--bits", 4, *options)
        assert distance(th.Engine(tmp_path / "fast").logits(ids), expected) < BOUNDS[kind]


def test_a_head_that_is_stored_twice_is_tied(tmp_path):
    folder = headed(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    export_gguf(folder, tmp_path / "model.gguf")
    assert "output.weight" not in {t.name for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}


def test_more_ends_of_texts_than_gguf_names_are_refused(tmp_path):
    model = tiny_llama()
    model.generation_config.eos_token_id = [1, 2, 3]
    export_gguf(save_folder(model, tmp_path / "three"), tmp_path / "three.gguf")
    model.generation_config.eos_token_id = [1, 2, 3, 4]
    with pytest.raises(CheckpointError, match=r"end at \d tokens .* GGUF files name 3; leave"):
        export_gguf(save_folder(model, tmp_path / "four"), tmp_path / "four.gguf")
    assert not (tmp_path / "four.gguf").exists()


def test_what_gguf_cannot_express_is_refused(folders, tmp_path):
    out = tmp_path / "out.gguf"
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}
    for family, options, problem in (
        ("SmolLM3", {"pad_token_id": 0}, "not written for models of the architecture 'smollm3'"),
        ("GPTNeoX", {}, "not written for models of the architecture 'gpt_neox'"),
        ("Mistral", {"sliding_window": 8}, "see 8 tokens, and llama.cpp"),
        ("Llama", {"rope_parameters": yarn}, "positions of the type 'yarn'"),
        ("Qwen3", {"attention_bias": True}, r"q_proj\.bias has no place"),
    ):
        of(family, **options).save_pretrained(tmp_path / family)
        tokenizer().save_pretrained(tmp_path / family)
        with pytest.raises(LayerError, match=problem):
            export_gguf(tmp_path / family, out)
    big = loaded(folders["llama"])
    big.model.layers[1].mlp.up_proj.weight.data[0, 0] = 1e6
    big.save_pretrained(tmp_path / "big")
    with pytest.raises(CheckpointError, match="no tokenizer"):
        export_gguf(tmp_path / "big", out)
    tokenizer().save_pretrained(tmp_path / "big")
    with pytest.raises(NumericalError, match=r"up_proj\.weight holds a weight of 1e\+06"):
        export_gguf(tmp_path / "big", out)
    export_gguf(tmp_path / "big", tmp_path / "bf16.gguf", "bf16")
    with pytest.raises(OptionError, match="no type 'q2_k'"):
        export_gguf(tmp_path / "big", out, "q2_k")
    assert not out.exists()
    assert not [file for file in tmp_path.iterdir() if "thresher" in file.name]


def test_tokenizers_of_other_models_are_refused(folders, tmp_path):
    with pytest.raises(CheckpointError, match="embedding 100 rows"):
        vocabulary_of(tokenizer(), 100, frozenset())
    from tokenizers import models, normalizers, processors

    changing = tokenizer()
    changing.backend_tokenizer.normalizer = normalizers.NFC()
    vocabulary_of(changing, VOCABULARY, frozenset())
    changing.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(CheckpointError, match="changes texts by Lowercase"):
        vocabulary_of(changing, VOCABULARY, frozenset())
    ending = tokenizer()
    ending.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "$A <|end|>", special_tokens=[("<|end|>", 258)]
    )
    with pytest.raises(CheckpointError, match=r"makes \[\d+, 258\] of a text"):
        vocabulary_of(ending, VOCABULARY, frozenset())
    other = byte_tokenizer()
    other.backend_tokenizer.model = models.WordLevel({"a": 0}, "a")
    with pytest.raises(CheckpointError, match="not WordLevel"):
        vocabulary_of(other, VOCABULARY, frozenset())


def llama_cpp(path):
    package = pytest.importorskip("llama_cpp")
    return package.Llama(str(path), n_ctx=128, n_threads=1, verbose=False, logits_all=True)


@pytest.mark.parametrize("name", ["llama", "tied", "biases", "scaled", "linear", "qwen2", "qwen3"])
@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0", "q4_1", "bf16"])
def test_llama_cpp_runs_it_as_the_engine_does(folders, tmp_path, name, kind):
    path = tmp_path / "model.gguf"
    export_gguf(folders[name], path, kind)
    theirs, ours = llama_cpp(path), th.Engine(path)
    ids = ids_of(loaded(folders[name]))
    theirs.eval(ids.tolist())
    found = torch.from_numpy(np.array(theirs.scores[: len(ids)]))
    # Both round inputs of products, each in its own way; f16 also those to float16.
    assert distance(found, ours.logits(ids)) < (0.01 if kind in ("f16", "bf16") else 0.05)


def test_llama_cpp_reads_the_tokenizer(folders, tmp_path):
    path = tmp_path / "model.gguf"
    export_gguf(folders["llama"], path)
    theirs = llama_cpp(path)
    assert theirs.tokenize(TEXT.encode(), add_bos=False) == tokenizer()(TEXT)["input_ids"]
