"""Models that the compiled loop does not run: text by their own passes."""

import pytest
import torch
import transformers
from click.testing import CliRunner
from model_folders import byte_tokenizer

import thresher as th
from thresher.cli import main
from thresher.core.errors import LayerError
from thresher.run.engine.session import Batch, Session

SMALL = {"vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CASES = {
    "GPTNeoX": {"intermediate_size": 64, "max_position_embeddings": 64},
    "OPT": {
        "ffn_dim": 64,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 32,
        "do_layer_norm_before": False,
    },
    "Bloom": {},
    # A window, whose cache forgets.
    "Cohere2": {
        "intermediate_size": 64,
        "num_key_value_heads": 1,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


def made(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**(SMALL | CASES.get(family, {})))
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def prompt(length, seed=0):
    return torch.randint(3, 256, (length,), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=CASES)
def model(request):
    return made(request.param)


def engine_of(model, **options):
    with pytest.warns(UserWarning, match="own passes in torch make the text"):
        return th.Engine(model, **options)


def test_text_is_that_of_transformers(model):
    engine, ids = engine_of(model), prompt(20)
    with torch.no_grad():
        assert torch.allclose(engine.logits(ids), model(ids[None]).logits[0], atol=1e-5)
    expected = model.generate(ids[None], max_new_tokens=20, do_sample=False)[0, 20:].tolist()
    kept = expected[: expected.index(2)] if 2 in expected else expected
    assert list(engine.tokens(ids, 20)) == kept
    # Guesses that are wrong are taken back.
    assert list(engine.tokens(ids, 20, lookup=4)) == kept


def test_a_session_goes_back_and_on(model):
    engine, ids = engine_of(model), prompt(30).numpy()
    session = Session(engine.compiled)
    for text in (ids[:20], ids[:25], ids[:12], prompt(15, 1).numpy(), ids):
        alone = Session(engine.compiled).logits(text, 2)
        assert torch.allclose(
            torch.from_numpy(session.logits(text, 2)), torch.from_numpy(alone), atol=1e-5
        )


def test_texts_together_are_those_alone():
    engine = engine_of(made("GPTNeoX"))
    texts = [prompt(n, n).numpy() for n in (5, 9)]
    sessions = [Session(engine.compiled) for _ in texts]
    found = Batch(engine.compiled).logits(
        [(session, text, 1) for session, text in zip(sessions, texts, strict=True)]
    )
    for logits, text in zip(found, texts, strict=True):
        assert torch.equal(
            torch.from_numpy(logits), torch.from_numpy(Session(engine.compiled).logits(text))
        )


def test_commands_take_a_folder(tmp_path):
    made("GPTNeoX").save_pretrained(tmp_path / "neox")
    byte_tokenizer().save_pretrained(tmp_path / "neox")
    command = ["generate", str(tmp_path / "neox"), "hello", "--tokens", "4"]
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 0, found.output
    packed = CliRunner().invoke(main, ["pack", command[1], "--out", str(tmp_path / "fast")])
    assert "does not know its architecture" in packed.output
    assert packed.exit_code == 1
    assert not (tmp_path / "fast").exists()
    rounded = CliRunner().invoke(main, [*command, "--bits", "4"])
    assert "does not run models of the architecture 'gpt_neox'" in rounded.output


def test_what_makes_no_text_is_refused():
    bert = transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, intermediate_size=64))
    with pytest.raises(LayerError, match="architecture 'bert'"):
        th.Engine(bert)
    t5 = transformers.T5Config(vocab_size=256, d_model=32, d_kv=8, d_ff=64, num_layers=1)
    with pytest.raises(LayerError, match="architecture 't5'"):
        th.Engine(transformers.T5ForConditionalGeneration(t5))
