"""What users mistype, and what they are told: a line or two that name the remedy."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from model_folders import byte_tokenizer, save_folder, tiny_llama

from thresher.cli import main

PRUNE = "prune llama --out out --calibration book.txt --length 64 --windows 4 --no-evaluate"
HALF = f"{PRUNE} --density 0.5"

#: Told before torch is imported: what is typed, and what the answer says.
EARLY = [
    ("prun", "Did you mean 'prune'?"),
    ("prune", "Missing argument 'MODEL'"),
    ("prune llama --density 0.5", "Missing option '--out'"),
    (PRUNE, "--sparsity 0.5, or a pattern"),
    ("prune llama --desnity 0.5 --out out", "'--density'"),
    ("prune nosuch --density 0.5 --out out", "the hub are named OWNER/NAME"),
    ("prune llam --density 0.5 --out out", "did you mean 'llama'?"),
    ("prune /no/such --density 0.5 --out out", "nor does '/no'"),
    ("prune empty/such --density 0.5 --out out", "'empty/such' does not exist"),
    ("prune a/b/c --density 0.5 --out out", "does not exist"),
    ("info nosuch", "does not exist"),
    ("report nosuch", "does not exist"),
    ("export nosuch plain", "does not exist"),
    ("export no/such plain", "'no/such' does not exist"),
    ("report no/such", "'no/such' does not exist"),
    ("eval nosuch --text book.txt", "does not exist"),
    ("bench nosuch --dense llama", "does not exist"),
    ("bench llama --dense lama", "did you mean 'llama'?"),
    ("heal nosuch", "does not exist"),
    ("heal llama --out zoo", "'zoo' was not written by Thresher"),
    ("compare nosuch --methods wanda --density 0.5", "does not exist"),
    ("generate nosuch hi", "does not exist"),
    ("serve nosuch", "does not exist"),
    ("serve llama --port 99999", "range 0<=x<=65535"),
    ("serve llama --api-key ''", "the API key is empty"),
    ("prune model.gguf --density 0.5 --out out", "gguf_file='model.gguf'"),
    ("prune rounded --density 0.5 --out out", "gguf_file='model.gguf'"),
    ("prune model.pt --density 0.5 --out out", "never opened"),
    ("info model.pt", "never opened"),
    ("prune x.safetensors --density 0.5 --out out", "the folder that it lies in"),
    ("prune book.txt --density 0.5 --out out", "is a file"),
    ("prune empty --density 0.5 --out out", "no config.json"),
    ("eval zoo --text book.txt", "did you mean 'zoo/llama'?"),
    (f"{PRUNE} --density 50", "did you mean 0.5?"),
    (f"{PRUNE} --density 50%", "did you mean 0.5?"),
    (f"{PRUNE} --density 1.5", "above 0 and at most 1"),
    (f"{PRUNE} --density 0", "above 0 and at most 1"),
    (f"{PRUNE} --density nan", "above 0 and at most 1"),
    (f"{PRUNE} --density -1", "above 0 and at most 1"),
    (f"{PRUNE} --density half", "such as 0.5"),
    (f"{HALF} --method sparsgpt", "did you mean 'sparsegpt'?"),
    (f"{HALF} --method 2ssp", "did you mean 'two-ssp'?"),
    (f"{HALF} --method slice-gpt", "did you mean 'slicegpt'?"),
    (f"{HALF} --method loss-omp", "does not prune a trained model"),
    (f"{HALF} --method xyzzy", "thresher methods"),
    (f"{HALF} --pattern blok", "known: 16x16"),
    (f"{HALF} --budget ow", "did you mean 'owl'?"),
    (f"{HALF} --update ob", "did you mean 'obs'?"),
    (f"{HALF} --tokens foo", "known: attention, equal"),
    (f"{HALF} --length -4", "range x>=1"),
    (f"{HALF} --windows 0", "range x>=1"),
    (f"{HALF} --dtype int8", "'float32'"),
    (f"{HALF} --precision fp16", "'float16'"),
    (f"{HALF} --device gpu", "use auto, cpu, cuda"),
    (f"{HALF} --calibration missing.txt", "'missing.txt' does not exist"),
    (f"{HALF} --calibration bok.txt", "did you mean 'book.txt'?"),
    (f"{HALF} --calibration datasets:book", "spell it datasets:NAME:SPLIT"),
    (f"{HALF} --calibration empty", "is a folder"),
    (f"{HALF} --text missing.txt", "does not exist"),
    (f"{HALF} --out llama --overwrite", "lie in one another"),
    (f"{HALF} --out book.txt", "was not written by Thresher"),
    (f"{HALF} --out notes --overwrite", "was not written by Thresher"),
    ("--plugin missing.py methods", "does not exist"),
    ("--plugin empty methods", "is a folder"),
    ("--plugin book.txt methods", "ending in .py"),
    ("--plugin import.py methods", "fails in line 2: ModuleNotFoundError"),
    ("--plugin syntax.py methods", "fails in line 1: SyntaxError"),
    ("--plugin deep.py methods", "fails in line 2: RuntimeError: boom"),
    ("eval llama", "pass --text, --tasks or both"),
    ("eval llama --text missing.txt", "does not exist"),
    ("eval llama --text empty", "is a folder"),
    ("eval llama --text book.txt --windows 0", "range x>=1"),
    ("methods wnda", "did you mean 'wanda'?"),
    ("methods 2SSP", "did you mean 'two-ssp'?"),
    ("methods 'Structurally Prune Anything'", "did you mean 'spa'?"),
    ("methods rigl", "`thresher methods` lists them"),
    ("methods xyzzy", "`thresher methods` lists them"),
    ("evidence", "name methods, or pass --all"),
    ("evidence wanda --seeds 0", "range x>=1"),
    ("compare llama --methods xyzzy --density 0.5", "thresher methods"),
    ("compare llama --methods wanda,sparsgpt --density 0.5", "did you mean 'sparsegpt'?"),
    ("compare llama --methods wanda --density 0.5,50", "did you mean 0.5?"),
    ("compare llama --methods , --density 0.5", "no method is named"),
    ("compare llama --methods wanda --density 0.5 --out book.txt", "exists; choose another"),
    ("compare llama --methods wanda --density 0.5 --out book.txt/x", "into 'book.txt'; choose"),
    ("compare llama --methods wanda --density 0.5 --out llama/x", "lie in one another"),
    ("compare llama --methods wanda --density 0.5 --out /proc/x", "into '/proc'; choose another"),
    ("generate llama", "Missing argument 'PROMPT'"),
    ("generate llama hi --bits 3", "'4', '8'"),
    ("generate llama hi --temperature -1", "range x>=0"),
    ("bench llama", "Missing option '--dense'"),
    ("bench llama --dense llama --batch 0", "range x>=1"),
    ("export llama", "Missing argument 'OUT'"),
    ("export model.gguf plain", "GGUF"),
    ("export llama small.gguf --onnx", "leave one of them away"),
    ("log nosuch --to wandb", "does not exist"),
    ("log llama", "Missing option '--to'"),
    ("log llama --to wandbb", "'wandb'"),
]
#: Told once the model or the text has been looked into.
LATE = [
    ("prune vit --density 0.5 --out out", "ViTForImageClassification"),
    ("prune mute --density 0.5 --out out", "has no tokenizer; write the original model's"),
    ("prune hollow --density 0.5 --out out", "has no weights: expected model.safetensors"),
    ("prune pickled --density 0.5 --out out", "never opened; convert it"),
    ("prune no/such --density 0.5 --out out", "the hub cannot be reached"),
    ("eval vit --text book.txt", "no causal language model (ViTForImageClassification)"),
    ("bench vit --dense llama", "load it in Python"),
    ("generate vit hi", "known: gemma"),
    ("serve vit --port 0", "known: gemma"),
    ("serve mute --port 0", "the model has no tokenizer"),
    ("serve llama --port 0 --host nowhere.invalid", "choose another --port or --host"),
    (f"{PRUNE} --pattern 4:2", "N must be at least 1"),
    (f"{PRUNE} --density 0.3 --pattern 2:4", "drop one of the two"),
    (f"{PRUNE} --pattern 2:5", "divisible by 5"),
    (f"{HALF} --device cuda:99", "use cpu or auto"),
    (f"{HALF} --exclude typo", "known: down_proj"),
    (f"{HALF} --include '*.xyz'", "matches no layer"),
    (f"{HALF} --exclude '*'", "outside exclude=['*']"),
    (f"{HALF} --calibration blank.txt", "is empty"),
    (f"{HALF} --calibration short.txt", "shorten the windows"),
    (f"{HALF} --calibration datasets:no/such:train", "the data set 'no/such' cannot be read"),
    (f"{HALF} --calibration latin.txt", "iconv -t UTF-8"),
    (f"{HALF} --calibration model.gguf", "as binary files"),
    ("eval llama --text book.txt --dense wide", "a vocabulary of 256 tokens and"),
    ("eval llama --text book.txt --dense turned", "whose tokenizer is another"),
    ("eval llama --tasks missing.jsonl", "does not exist"),
    ("eval llama --tasks book.txt", "every line must be one JSON object"),
    ("report llama", "no record was kept"),
    ("log llama --to tensorboard", "no record was kept"),
    ("report notes", "has no weights"),
    ("evidence wanda --scale 0", "must be above 0"),
    ("compare llama --methods wanda", "say how much to keep"),
    ("heal llama --minutes 0", "above 0"),
    ("heal llama --text book.txt --length 64", "pass --teacher DENSE"),
    ("generate llama ''", "at least one token"),
    ("generate llama hi --tokens 100000", "ask for at most 510"),
    ("bench llama --dense llama --tokens 9999", "--tokens 496 fits"),
    ("export llama llama", "exists; choose another"),
]
FILES = {
    "blank.txt": b" \n",
    "short.txt": b"too short",
    "latin.txt": "café".encode("latin-1") * 100,
    "model.gguf": b"GGUF" + bytes(60),
    "rounded/model.gguf": b"GGUF" + bytes(60),
    "model.pt": b"PK",
    "x.safetensors": bytes(8),
    "notes/thesis.txt": b"years of work",
    "import.py": b"\nimport no_such_module\n",
    "syntax.py": b"def (\n",
    "deep.py": b"def f():\n    raise RuntimeError('boom')\nimport json\nf()\n",
}


@pytest.fixture(scope="module")
def place(llama_folder, book, tmp_path_factory):
    """A folder with models, texts and what is taken for them."""
    from transformers import ViTConfig, ViTForImageClassification

    place = tmp_path_factory.mktemp("mistakes")
    for name, held in FILES.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(held)
    (place / "empty").mkdir()
    shutil.copyfile(book, place / "book.txt")
    for name in ("llama", "mute", "hollow", "pickled", "zoo/llama"):
        shutil.copytree(llama_folder, place / name)
    for file in (place / "mute").glob("*token*"):
        file.unlink()
    for name in ("hollow", "pickled"):
        (place / name / "model.safetensors").unlink()
    torch.save({}, place / "pickled" / "pytorch_model.bin")
    save_folder(tiny_llama(layers=1, vocab_size=300), place / "wide")
    shutil.copytree(llama_folder, place / "turned")
    turned = json.loads((place / "turned" / "tokenizer.json").read_text())
    words = turned["model"]["vocab"]
    turned["model"]["vocab"] = dict(zip(words, reversed(words.values()), strict=True))
    (place / "turned" / "tokenizer.json").write_text(json.dumps(turned))
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    ViTForImageClassification(
        ViTConfig(**sizes, intermediate_size=8, image_size=8, patch_size=8)
    ).save_pretrained(place / "vit")
    return place


def check(line: str, code: int, output: str, message: str, place) -> None:
    told = [each for each in output.splitlines() if not each.startswith("windows of")]
    assert code in (1, 2), (line, output)
    assert len(told) <= 2, (line, output)
    assert message in output, (line, output)
    assert not (place / "out").exists(), line


@pytest.mark.parametrize(("line", "message"), LATE, ids=[line for line, _ in LATE])
def test_later(place, monkeypatch, line, message):
    monkeypatch.chdir(place)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = CliRunner().invoke(main, shlex.split(line), prog_name="thresher")
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    check(line, found.exit_code, found.output, message, place)


def test_before_torch_is_imported(place):
    """In one process, which nothing else has imported torch into."""
    code = """
import json, shlex, sys
from click.testing import CliRunner
from thresher.cli import main
found = []
for line in json.load(sys.stdin):
    result = CliRunner().invoke(main, shlex.split(line), prog_name="thresher")
    wrong = result.exception
    crashed = wrong is not None and not isinstance(wrong, SystemExit)
    found.append([result.exit_code, result.output + repr(wrong) * crashed, "torch" in sys.modules])
print(json.dumps(found))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([line for line, _ in EARLY]),
        capture_output=True,
        text=True,
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ran.returncode == 0, ran.stderr
    for (line, message), (exit_code, output, torch_is_there) in zip(
        EARLY, json.loads(ran.stdout), strict=True
    ):
        assert not torch_is_there, line
        check(line, exit_code, output, message, place)


def test_a_tokenizer_that_cannot_be_read_is_told_apart_from_none(place, tmp_path):
    shutil.copytree(place / "mute", tmp_path / "broken")
    byte_tokenizer().save_pretrained(tmp_path / "broken")
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    found = CliRunner().invoke(
        main,
        ["prune", str(tmp_path / "broken"), "--density", "0.5", "--out", str(tmp_path / "out")],
    )
    assert "no tokenizer that can be read (" in found.output
