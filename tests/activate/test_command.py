"""``thresher activate`` as a user types it, and what reads its folder."""

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from thresher.activate.folder import activate_folder
from thresher.activate.teal import TEAL
from thresher.activate.wina import WINA
from thresher.cli import main
from thresher.core.errors import OptionError
from thresher.parts.activations.attached import attached
from thresher.run.files.activations import ACTIVATIONS_FILE

TEXT = ("--windows", 8, "--length", 64)


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def sparse(llama_folder, book, tmp_path_factory):
    """A folder written by the command."""
    out = tmp_path_factory.mktemp("cli") / "sparse"
    options = ("--method", "wina", "--calibration", book, *TEXT, "--out", out)
    output = run("activate", llama_folder, "--sparsity", 0.5, *options)
    assert "perplexity, sparse" in output
    assert "Gained: " in output
    assert f"thresher eval {out}" in " ".join(output.split())
    return out


def test_the_folder_is_the_models_with_thresholds(sparse, llama_folder):
    names = {file.name for file in sparse.iterdir()}
    assert names >= {file.name for file in llama_folder.iterdir()} | {ACTIVATIONS_FILE}
    weights = [load_file(folder / "model.safetensors") for folder in (sparse, llama_folder)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    record = json.loads((sparse / "thresher-activations.json").read_text())
    assert record["evaluation"]["pruned_perplexity"] > 1
    assert all(0.3 < site["evaluated"] < 0.7 for site in record["sites"])
    assert len(attached(AutoModelForCausalLM.from_pretrained(sparse))) == len(record["sites"]) == 21


def test_eval_takes_the_thresholds_and_counts(sparse, llama_folder, book):
    arguments = ("--text", book, "--dense", llama_folder, "--length", 64)
    output = run("eval", sparse, *arguments)
    assert "activations dropped" in output
    found = json.loads(run("eval", sparse, *arguments, "--json"))["text"]
    assert found["kl"] > 0
    assert len(found["activation_sparsity"]) == 21
    dense = json.loads(run("eval", llama_folder, *arguments, "--json"))["text"]
    assert dense["kl"] == 0
    assert "activation_sparsity" not in dense


def test_info_shows_it(sparse):
    output = run("info", sparse)
    assert "activations by wina" in output
    assert "q_proj" in output
    assert "model.layers.0.mlp.up_proj" in run("info", sparse, "--layers").replace("\n", "")
    data = json.loads(run("info", sparse, "--json"))
    assert data["activations"]["method"] == "wina"


def test_a_pruned_folder_can_be_activated_from_disk(llama_folder, book, tmp_path):
    pruned, out = tmp_path / "pruned", tmp_path / "sparse"
    some = ("--calibration", book, *TEXT, "--no-evaluate")
    run("prune", llama_folder, "--method", "wanda", "--sparsity", 0.5, *some, "--out", pruned)
    run("activate", pruned, "--method", "wina", "--sparsity", 0.4, *some, "--out", out)
    info = run("info", out)
    assert "activations by wina" in info
    assert "How it was made" in info
    model = AutoModelForCausalLM.from_pretrained(out)
    assert len(attached(model)) == 21
    assert float((model.model.layers[0].mlp.up_proj.weight == 0).float().mean()) > 0.4


def test_disk_and_memory_give_the_same_thresholds(llama_folder):
    import thresher as th

    windows = torch.randint(256, (8, 32), generator=torch.Generator().manual_seed(0))
    recipe = WINA(sparsity=0.5)
    skeleton, _ = activate_folder(llama_folder, recipe, windows, progress=False)
    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    th.activate(model, recipe, windows, progress=False)
    for key, selection in attached(model).items():
        for name, tensor in selection.tensors().items():
            torch.testing.assert_close(attached(skeleton)[key].tensors()[name], tensor)


def test_every_method_works_from_disk(llama_folder):
    windows = torch.randint(256, (8, 32), generator=torch.Generator().manual_seed(0))
    for method in ("teal", "cats", "chess", "r-sparse"):
        from thresher.activate.memory import as_activation_recipe

        recipe = as_activation_recipe(method).with_options(0.5)
        model, record = activate_folder(llama_folder, recipe, windows, progress=False)
        assert record.sparsity == pytest.approx(0.5, abs=0.1)
        assert attached(model)


def test_an_activated_folder_is_refused(sparse, tmp_path):
    windows = torch.randint(256, (4, 32))
    with pytest.raises(OptionError, match="calibrate the dense model's folder"):
        activate_folder(sparse, TEAL(sparsity=0.5), windows)
    options = ("--sparsity", 0.5, "--out", tmp_path / "out")
    assert "calibrate the dense model" in run("activate", sparse, *options, code=1)
    assert "sparse last" in run("prune", sparse, "--method", "magnitude", *options, code=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "teal"], "--sparsity 0.5"),
        (["--sparsity", "50"], "did you mean 0.5?"),
        (["--sparsity", "1"], "at least 0 and below 1"),
        (["--sparsity", "0.5", "--method", "wanda"], "does not make activations sparse"),
        (["--sparsity", "0.5", "--method", "teall"], "did you mean 'teal'?"),
        (["--sparsity", "0.5", "--levels", "greedi"], "did you mean 'greedy'?"),
        (["--sparsity", "0.5", "--rule", "topk"], "did you mean 'top-k'?"),
        (["--sparsity", "0.5", "--calibration", "missing.txt"], "does not exist"),
    ],
)
def test_mistakes_are_told(arguments, said, llama_folder, tmp_path):
    result = CliRunner().invoke(
        main, ["activate", str(llama_folder), "--out", str(tmp_path / "out"), *arguments]
    )
    assert result.exit_code
    assert said in result.output
    assert not (tmp_path / "out").exists()


def test_a_text_shorter_than_a_window_is_named(llama_folder, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("too short", encoding="utf-8")
    options = ("--sparsity", 0.5, "--calibration", text, "--out", tmp_path / "out")
    assert "shorten the windows" in run("activate", llama_folder, *options, code=1)


def test_methods_show_how_they_are_used():
    assert 'thresher.activate(model, "teal", sparsity=0.5)' in run("methods", "teal")
    assert "Training-Free Activation Sparsity" in run("methods", "teal")


def test_packed_it_generates_and_is_timed(sparse, llama_folder, book, tmp_path):
    refused = run("pack", sparse, "--out", tmp_path / "no", code=1)
    assert "in 4 bits alone" in " ".join(refused.split())
    refused = run("pack", sparse, "--out", tmp_path / "no", "--bits", 4, "--text", book, code=1)
    assert "leave --text out" in " ".join(refused.split())
    assert not (tmp_path / "no").exists()
    run("pack", sparse, "--out", tmp_path / "fast", "--bits", 4)
    assert json.loads((tmp_path / "fast" / "engine.json").read_text())["version"] == 2
    assert run("generate", tmp_path / "fast", "sparse", "--tokens", 4)
    options = ("--dense", llama_folder, "--tokens", 2, "--repeats", 1, "--busy")
    assert "tokens/s" in run("bench", tmp_path / "fast", *options)
    found = json.loads(run("bench", tmp_path / "fast", *options, "--json"))
    assert found["tokens_per_second"].keys() == {"dense", "packed"}
    refused = run("bench", tmp_path / "fast", *options, "--save", code=1)
    assert "leave --save out" in " ".join(refused.split())
