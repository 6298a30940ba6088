"""The engine, llama.cpp and transformers beside each other on the command line."""

import json

import pytest
from click.testing import CliRunner
from model_folders import byte_tokenizer, save_folder, tiny_llama
from tokenizers import models

from thresher.cli import main
from thresher.run.engine.gguf.write import export_gguf
from thresher.run.measure import texts


def type_in(*arguments, code=0):
    result = CliRunner().invoke(main, ["bench", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = tiny_llama(layers=1, vocab_size=257)
    place = save_folder(model, tmp_path_factory.mktemp("texts") / "model")
    held = byte_tokenizer()
    vocabulary = held.backend_tokenizer.get_vocab(with_added_tokens=False)
    held.backend_tokenizer.model = models.BPE(vocabulary | {"er": 256}, [("e", "r")])
    held.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def gguf(folder):
    file = folder.with_name("model.gguf")
    export_gguf(folder, file, "f16")
    return file


SHORT = ("--tokens", 2, "--repeats", 1, "--busy")


def test_the_table_says_what_is_not_installed(folder, gguf, monkeypatch):
    monkeypatch.setattr(texts, "_LLAMA", "no_such_package")
    options = ("--gguf", gguf, "--dense", folder, *SHORT)
    found = json.loads(type_in(folder, *options, "--json"))
    names = [f"{folder}, the engine", f"{gguf}, the engine", f"{folder}, torch bfloat16"]
    for what in ("tokens_per_second", "prompt_per_second"):
        assert list(found[what]) == names
        assert min(found[what].values()) > 0
    shown = " ".join(type_in(gguf, "--gguf", gguf, *SHORT).split())
    assert "pip install llama-cpp-python" in shown
    assert " 1x " in shown
    assert "Ratios are to" in shown
    # The same file is not timed twice.
    once = json.loads(type_in(gguf, "--gguf", gguf, *SHORT, "--json"))
    assert list(once["tokens_per_second"]) == [names[1]]


def test_llama_cpp_runs_the_same_file(folder, gguf):
    pytest.importorskip("llama_cpp")
    shown = type_in(folder, "--gguf", gguf, *SHORT, "--json")
    found = json.loads(shown[shown.index("{") :])
    assert f"{gguf}, llama.cpp" in found["tokens_per_second"]
    assert not found["missing"]


def test_llama_cpp_says_what_it_does_not_run(tmp_path):
    pytest.importorskip("llama_cpp")
    # Its tokenizer has no merges.
    folder, gguf = save_folder(tiny_llama(layers=1), tmp_path / "model"), tmp_path / "model.gguf"
    export_gguf(folder, gguf, "f16")
    assert "llama.cpp does not take" in type_in(folder, "--gguf", gguf, *SHORT, code=1)


def test_what_does_not_fit_or_go_together(folder, gguf):
    assert "do not fit the 512 positions" in type_in(
        folder, "--gguf", gguf, "--tokens", 513, "--busy", code=1
    )
    assert "--save keeps" in type_in(folder, "--gguf", gguf, "--save", code=2)
    assert "Missing option '--dense', or '--gguf'" in type_in(folder, code=2)
    assert "does not exist" in type_in(folder, "--gguf", folder / "none.gguf", code=2)
