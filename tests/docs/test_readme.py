"""The README's snippets and commands, one after another, as somebody who follows it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from model_folders import save_folder, tiny_llama
from transformers import AutoModelForCausalLM

from thresher.cli import main
from thresher.parts.calibration import token_windows

README = (Path(__file__).parents[2] / "README.md").read_text()


def snippets(language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for named, text in blocks if named == language]


def the_snippet(words: str) -> str:
    (found,) = [each for each in snippets("python") if words in each]
    return found


def commands(word: str) -> list[str]:
    """Return the README's lines that begin with a command, without comments."""
    lines = [line for block in snippets("") for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.startswith(word)]


def type_in(line: str) -> str:
    result = CliRunner().invoke(main, shlex.split(line)[1:])
    assert result.exit_code == 0, (line, result.output, result.exception)
    return result.output


@pytest.fixture
def place(tmp_path, monkeypatch, book):
    """A folder with what the README takes for granted: MODEL, texts and questions."""
    monkeypatch.chdir(tmp_path)
    save_folder(tiny_llama(layers=2), tmp_path / "MODEL")
    for name in ("notes.txt", "book.txt"):
        (tmp_path / name).write_text(book.read_text()[:20_000])
    question = {"question": "Which?", "choices": ["this", "that"], "answer": 0}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question))
    return tmp_path


def test_the_commands(place):
    for command in ("prune", "eval", "heal", "info", "report", "export"):
        short = " --length 64" if command in ("prune", "eval") else ""
        short += " --length 64 --minutes 0.02" if command == "heal" else ""
        lines = commands(f"thresher {command} ")
        assert lines
        for line in lines:
            type_in(line + short)
    assert {"small", "plain"} <= {path.name for path in place.iterdir()}
    exec(the_snippet("from transformers import AutoModelForCausalLM\n"), {})


def test_the_library_and_then_the_commands(place, book):
    model = AutoModelForCausalLM.from_pretrained("MODEL")
    texts = [book.read_text()[:20_000]]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("MODEL")
    batches = token_windows(tokenizer, texts, length=64, count=4)
    names = {"model": model, "texts": texts, "batches": batches}
    exec(the_snippet("th.Recipe("), names)
    for command in ("info", "report", "eval"):
        lines = commands(f"thresher {command} ")
        assert lines
        for line in lines:
            output = type_in(line + (" --length 64" if command == "eval" else ""))
            assert "OWL" in output or command != "info"
    exec(the_snippet("th.pack(model"), names | {"AutoModelForCausalLM": AutoModelForCausalLM})
    assert (place / "packed" / "config.json").is_file()


def test_a_linear_model():
    import numpy as np

    random = np.random.default_rng(0)
    X = random.normal(size=(50, 5))
    exec(the_snippet("LassoCV()"), {"X": X, "y": X[:, 0]})


@pytest.mark.parametrize("line", commands("thresher methods"))
def test_the_catalogue(line):
    assert type_in(line)
