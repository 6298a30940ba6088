"""The engine beside transformers: logits, text, and what it refuses."""

from __future__ import annotations

import os

import pytest
import torch
import transformers
from model_folders import byte_tokenizer
from small_models import VOCABULARY, llama

import thresher as th
from thresher.core.errors import (
    CheckpointError,
    DataError,
    LayerError,
    NumericalError,
    OptionError,
)
from thresher.run.engine.sampling import Sampler
from thresher.run.layouts import Bitmask
from thresher.run.packed.linear import PackedLinear

#: Of logits, relative to their norm: what rounding of weights and inputs may cost.
BOUNDS = {None: 2e-5, 8: 0.03, 4: 0.4}

OPTIONS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
#: Two rotary bases, small caps that change much, and a scale of scores of its own. Attention of
#: torch leaves caps out.
GEMMA = {
    "head_dim": 16,
    "sliding_window": 9,
    "query_pre_attn_scalar": 24,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "attn_implementation": "eager",
}
OPT = {"ffn_dim": 72, "word_embed_proj_dim": 48}
CASES = {
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma2": ("Gemma2", GEMMA | {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5}),
    "gemma3": ("Gemma3", GEMMA),
    "gpt2": ("GPT2", {}),
    "gpt2-odd": ("GPT2", {"hidden_size": 40, "n_inner": 77, "tie_word_embeddings": False}),
    "llama": ("Llama", {}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-odd": ("Llama", {"hidden_size": 44, "intermediate_size": 77, "head_dim": 18}),
    "llama-3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama-yarn": (
        "Llama",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-window": ("Mistral", {"sliding_window": 9}),
    "opt": ("OPT", OPT),
    "opt-gelu": ("OPT", OPT | {"activation_function": "gelu_new", "ffn_dim": 77}),
    "phi3": ("Phi3", {"sliding_window": None}),
    "phi3-window": ("Phi3", {"sliding_window": 9}),
    "qwen2": ("Qwen2", {}),
    "qwen2-window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"head_dim": 24}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0, 1]}),
}


def made(name, seed=0, options=None):
    family, changes = options or CASES[name]
    torch.manual_seed(seed)
    kind = "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config"
    config = getattr(transformers, kind)(**(OPTIONS | changes))
    model = getattr(transformers, f"{family}ForCausalLM", None)
    model = (model or transformers.GPT2LMHeadModel)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too, which start as ones and zeros
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.bfloat16().float()


@torch.no_grad()
def reference(model, ids):
    return model(input_ids=ids.unsqueeze(0)).logits[0]


def prompt(length=150, seed=0):
    return torch.randint(3, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed))


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bits", BOUNDS)
def test_logits_are_those_of_transformers(name, bits):
    model = made(name)
    ids = prompt()
    found = th.Engine(model, bits).logits(ids)
    assert distance(found, reference(model, ids)) < BOUNDS[bits]


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "gpt2", "opt"])
@pytest.mark.parametrize("bits", BOUNDS)
def test_logits_on_every_instruction_set(engine_isa, bits, name):
    model = made(name)
    ids = prompt(70)
    assert distance(th.Engine(model, bits).logits(ids), reference(model, ids)) < BOUNDS[bits]


@pytest.mark.parametrize(
    "name",
    [
        *("gemma2", "gemma3", "gpt2", "llama", "mistral-window", "opt", "phi3-window", "qwen2"),
        *("qwen3", "smollm3"),
    ],
)
def test_greedy_tokens_are_those_of_transformers(name):
    model = made(name, 1)
    engine = th.Engine(model)
    for seed in range(4):
        ids = prompt(5 + 30 * seed, seed)
        expected = model.generate(ids.unsqueeze(0), max_new_tokens=40, do_sample=False)
        kept = [t for t in expected[0, len(ids) :].tolist() if t != 2]
        assert list(engine.tokens(ids, 40)) == kept


def test_two_engines_and_two_texts_at_once():
    first, second = th.Engine(made("llama")), th.Engine(made("qwen2"), 8)
    alone = [list(first.tokens(prompt(9), 30)), list(second.tokens(prompt(9), 30))]
    others = list(first.tokens(prompt(12, 3), 30))
    mixed = zip(
        first.tokens(prompt(9), 30),
        second.tokens(prompt(9), 30),
        first.tokens(prompt(12, 3), 30),
        strict=False,
    )
    for i, tokens in enumerate(mixed):
        assert tokens == (alone[0][i], alone[1][i], others[i])


def test_the_model_is_left_alone_and_not_read_again():
    model = made("llama")
    before = {name: p.clone() for name, p in model.named_parameters()}
    engine = th.Engine(model, 4)
    ids = prompt(10)
    found = engine.logits(ids)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(engine.logits(ids), found)


def test_sparse_and_packed_models_run():
    model = llama().bfloat16().float()
    ids = prompt(20)
    th.prune(model, "magnitude", density=0.5)
    expected = reference(model, ids)
    assert distance(th.Engine(model).logits(ids), expected) < BOUNDS[None]
    mlp = model.model.layers[1].mlp
    mlp.down_proj = PackedLinear.from_linear(mlp.down_proj, Bitmask)
    assert distance(th.Engine(model).logits(ids), expected) < BOUNDS[None]


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0, "top_k": 9, "seed": 1}])
def test_log_probabilities_are_those_of_transformers(options):
    model = made("qwen2")
    engine, ids = th.Engine(model), prompt(9)
    sampler = Sampler(repetition_penalty=1.3, **options)
    tokens = list(engine.tokens(ids, 20, sampler, logprobs=4))
    assert tokens == list(engine.tokens(ids, 20, sampler))
    text = torch.cat([ids, torch.tensor(tokens)])
    expected = reference(model, text)[len(ids) - 1 : -1].log_softmax(-1)
    for row, token in zip(expected, tokens, strict=True):
        assert token.logprob == pytest.approx(float(row[token]), abs=1e-3)
        values, places = row.topk(4)
        assert [each for each, _ in token.top] == places.tolist()
        assert [value for _, value in token.top] == pytest.approx(values.tolist(), abs=1e-3)


def test_pieces_of_text_have_their_tokens():
    model = llama(vocab_size=256, max_position_embeddings=199)
    engine = th.Engine(model, tokenizer=byte_tokenizer())
    pieces = list(engine.stream("a", max_new_tokens=40, temperature=1.0, seed=3, logprobs=0))
    tokens = [token for piece in pieces for token in piece.tokens]
    expected = engine.tokens(
        engine.tokenizer("a")["input_ids"], 40, Sampler(1.0, seed=3), logprobs=0
    )
    assert [(t, t.logprob, t.top) for t in tokens] == [(t, t.logprob, ()) for t in expected]
    for logprobs in (-1, 257):
        with pytest.raises(OptionError, match=f"logprobs is {logprobs}"):
            engine.stream("a", logprobs=logprobs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_it_runs_in_a_child_of_fork():
    engine = th.Engine(made("llama"))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = list(engine.tokens(prompt(9), 5))
        child = os.fork()
        if child == 0:
            os._exit(0 if list(engine.tokens(prompt(9), 5)) == expected else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(before)


def test_folder_streams_the_text_of_transformers(tmp_path):
    model = llama(vocab_size=256, max_position_embeddings=128)
    model.bfloat16().save_pretrained(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    engine = th.Engine(tmp_path)
    ids = tokenizer("sparse", return_tensors="pt")["input_ids"]
    out = model.float().generate(ids, max_new_tokens=30, do_sample=False, pad_token_id=0)
    new = [token for token in out[0, ids.shape[1] :].tolist() if token != 2]
    assert "".join(engine.stream("sparse", 30)) == tokenizer.decode(new)
    drawn = [engine.generate("a", max_new_tokens=20, temperature=1.0, seed=s) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        ([], "empty"),
        ([3] * 257, "257 tokens, the model's context 256"),
        ([3, VOCABULARY], f"token {VOCABULARY} is outside"),
        ([3, -1], "token -1 is outside"),
        ([[3, 4]], r"shape \(1, 2\)"),
        ([0.5], "dtype float64"),
    ],
)
def test_wrong_prompts(ids, problem):
    engine = th.Engine(made("llama"))
    with pytest.raises(DataError, match=problem):
        engine.logits(ids)
    with pytest.raises(DataError, match=problem):
        engine.tokens(ids)


def test_what_does_not_fit_the_context_is_refused_before_any_work():
    engine = th.Engine(made("llama"))
    with pytest.raises(OptionError, match="at most 56"):
        engine.tokens([3] * 200, 57)
    with pytest.raises(OptionError, match="max_new_tokens is 0"):
        engine.tokens([3], 0)


def test_empty_text_is_refused():
    engine = th.Engine(llama(vocab_size=256), tokenizer=byte_tokenizer())
    with pytest.raises(DataError, match="empty"):
        engine.stream("")
    with pytest.raises(OptionError, match="stop string is empty"):
        engine.stream("a", stop=["x", ""])


def test_text_needs_a_tokenizer():
    with pytest.raises(DataError, match="no tokenizer"):
        th.Engine(llama()).stream("a")


@pytest.mark.parametrize("bits", [3, 16, 0, "4"])
def test_bits_that_there_are_not(bits):
    with pytest.raises(OptionError, match=f"bits is {bits}"):
        th.Engine(llama(), bits)


def test_other_architectures_are_refused_by_name(tmp_path):
    config = transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=1, n_head=2)
    model = transformers.BloomForCausalLM(config)
    with pytest.raises(LayerError, match="architecture 'bloom'"):
        th.Engine(model, 8)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # refused before the weights are looked for
    with pytest.raises(LayerError, match="architecture 'bloom'"):
        th.Engine(tmp_path, 8)


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("GPT2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is"),
        ("GPT2", {"hidden_size": 44}, "heads of an even width"),
        ("GPT2", {"activation_function": "gelu"}, "activation 'gelu'"),
        ("OPT", OPT | {"do_layer_norm_before": False}, "do_layer_norm_before is True"),
        ("OPT", OPT | {"word_embed_proj_dim": 32}, "embeddings are as wide"),
    ],
)
def test_what_the_engine_does_not_run_of_an_architecture_is_named(family, changes, words):
    model = made(None, options=(family, changes))
    with pytest.raises(LayerError, match=words):
        th.Engine(model, 8)
    ids = prompt(20)
    with pytest.warns(UserWarning, match=words):
        assert distance(th.Engine(model).logits(ids), reference(model, ids)) < BOUNDS[None]


def test_changed_models_are_refused():
    with pytest.raises(LayerError, match="activation 'gelu'"):
        th.Engine(llama(hidden_act="gelu"), 8)
    model = llama()
    model.model.layers[1].extra = torch.nn.Linear(2, 2)
    with pytest.raises(LayerError, match=r"knows no 'model\.layers\.1\.extra', a Linear"):
        th.Engine(model)
    model = llama()
    model.model.layers[0].mlp.up_proj = torch.nn.Sequential(model.model.layers[0].mlp.up_proj)
    with pytest.raises(LayerError, match=r"mlp\.up_proj, a Sequential"):
        th.Engine(model)
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    with pytest.raises(LayerError, match="type 'dynamic'"):
        th.Engine(llama(rope_parameters=dynamic), 8)


def test_missing_folders_and_broken_weights(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        th.Engine(tmp_path / "nothing")
    model = llama()
    model.model.layers[2].mlp.down_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(NumericalError, match=r"layers\.2\.mlp\.down_proj"):
        th.Engine(model)


def test_logits_that_are_not_finite_end_the_text():
    model = llama()
    model.model.norm.weight.data[0] = torch.inf
    with pytest.raises(NumericalError, match="not finite"):
        list(th.Engine(model).tokens([3], 5))


def test_sampler_options():
    for options in ({"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.5}, {"seed": -1}):
        with pytest.raises(OptionError, match=next(iter(options))):
            Sampler(**options)


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_a_model_whose_own_pass_does_more_is_refused(bits):
    model = made("llama")
    model.train()
    model.lm_head.register_forward_hook(lambda module, args, output: output / 16)
    with pytest.raises(LayerError, match="whose own pass does something"):
        th.Engine(model, bits)
    assert model.training
    assert model.lm_head.training
