"""``thresher eval`` of what runs in the engine alone: packed folders and GGUF files."""

import json

import pytest
import torch
from click.testing import CliRunner
from model_folders import byte_tokenizer, save_folder, tiny_llama
from tokenizers import models

import thresher as th
from thresher.cli import main
from thresher.core.errors import DataError
from thresher.run.engine.gguf.write import export_gguf

WINDOWS = ("--length", 64, "--windows", 3)


def type_in(*arguments, code=0):
    result = CliRunner().invoke(main, ["eval", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def packed(llama_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "fast"
    th.Engine(llama_folder, 8).save(out)
    return out


def measured(*arguments):
    return json.loads(type_in(*arguments, *WINDOWS, "--json"))["text"]


def test_a_packed_folder_is_near_the_model_that_it_was_made_from(llama_folder, packed, book):
    whole = measured(llama_folder, "--text", book)
    found = measured(packed, "--text", book, "--dense", llama_folder)
    assert found["dense_perplexity"] == pytest.approx(whole["pruned_perplexity"], rel=1e-6)
    assert found["pruned_perplexity"] == pytest.approx(whole["pruned_perplexity"], rel=0.02)
    # Rounded to bytes it is near, and not the same.
    assert 0 < found["kl"] < 0.01
    assert found["digest"] == whole["digest"]
    engine = measured(packed, "--text", book)
    assert engine["pruned_perplexity"] == pytest.approx(found["pruned_perplexity"], rel=1e-6)
    itself = measured(packed, "--text", book, "--dense", packed)
    assert itself["kl"] == 0


def test_a_gguf_file_is_evaluated_by_its_own_tokenizer(book, tmp_path):
    folder = save_folder(tiny_llama(layers=1, vocab_size=257), tmp_path / "model")
    held = byte_tokenizer()
    vocabulary = held.backend_tokenizer.get_vocab(with_added_tokens=False)
    held.backend_tokenizer.model = models.BPE(vocabulary | {"er": 256}, [("e", "r")])
    held.save_pretrained(folder)
    export_gguf(folder, tmp_path / "model.gguf", "f16")
    found = measured(tmp_path / "model.gguf", "--text", book, "--dense", folder)
    assert found["pruned_perplexity"] == pytest.approx(found["dense_perplexity"], rel=0.01)


def test_engines_are_evaluated_in_python(llama_folder):
    engine, windows = th.Engine(llama_folder, 8), torch.arange(60).reshape(2, 30)
    logits = [engine.logits(window)[:-1] for window in windows]
    assert th.perplexity(engine, windows) == th.perplexity(logits, windows)
    found = th.run.evaluate.compare(engine, logits, windows)
    assert found.kl == 0
    with pytest.raises(DataError, match="outside the model's vocabulary"):
        th.perplexity(engine, windows + 10_000)


def test_what_the_engine_cannot_do_is_refused(llama_folder, packed, book, tmp_path):
    tasks = tmp_path / "mine.jsonl"
    tasks.write_text(json.dumps({"question": "Which?", "choices": ["a", "b"], "answer": 0}))
    text = ("--text", book, *WINDOWS)
    for options, said in (
        (("--tasks", tasks), "--tasks cannot be had"),
        ((*text, "--save"), "--save cannot be had"),
        ((*text, "--precision", "float32"), "leave --precision and --device out"),
        ((*text, "--device", "cuda"), "leave --precision and --device out"),
    ):
        assert said in type_in(packed, *options, code=1)
    assert "--tasks cannot be had" in type_in(
        llama_folder, "--dense", packed, "--tasks", tasks, code=1
    )


def test_a_folder_without_a_tokenizer_says_so(llama_folder, book, tmp_path):
    model = th.workflow.load_model(llama_folder)
    th.Engine(model, 8).save(tmp_path / "bare")
    said = type_in(tmp_path / "bare", "--text", book, *WINDOWS, code=1)
    assert "has no tokenizer" in said
