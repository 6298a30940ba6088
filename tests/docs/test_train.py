"""The snippets of the guide on training sparse, as somebody who follows it."""

import re
from functools import partial

import pytest
import torch
from model_folders import tiny_llama
from pages import DOCS, snippet

import thresher as th
from thresher.core.remembered import remembered
from thresher.parts.activations.attached import attached

the_snippet = partial(snippet, "train")


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the guide takes for granted, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    batches = torch.randint(256, (12, 2, 16))
    return {"model": tiny_llama(layers=1), "batches": batches, "th": th, "torch": torch}


def share(model):
    weight = model.model.layers[0].mlp.up_proj.weight
    return float((weight != 0).float().mean())


def test_a_fixed_mask(names, tmp_path):
    before = names["model"].model.layers[0].mlp.up_proj.weight.detach().clone()
    exec(the_snippet('pattern="2:4"'), names)
    assert share(names["model"]) == 0.5
    after = names["model"].model.layers[0].mlp.up_proj.weight
    assert not torch.equal(after, before * (after != 0))
    assert (tmp_path / "sparse/thresher.json").is_file()


def test_a_density_that_falls(names):
    """Cuts at every second step; what was cut stays so."""
    shares = []
    names["model"].register_forward_pre_hook(lambda *_: shares.append(share(names["model"])))
    code = the_snippet("falling.due")
    exec(code.replace("every=100, stop=1000", "every=2, stop=8"), names)
    assert shares[0] == shares[1] == pytest.approx(0.9, abs=1e-3)
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 5
    assert share(names["model"]) == shares[-1] == pytest.approx(0.3, abs=1e-3)


def test_a_density_that_falls_without_training(names):
    exec(the_snippet("prune_gradually"), names)
    assert remembered(names["model"]).density == pytest.approx(0.3, abs=1e-3)


def test_few_active_inputs(names, tmp_path):
    exec(the_snippet('"q-sparse"'), names)
    assert attached(names["model"])
    assert (tmp_path / "sparse/thresher-activations.safetensors").is_file()


def test_few_active_neurons(names):
    exec(the_snippet("ProSparse("), names)
    assert names["model"].config.hidden_act == "relu"
    assert {side for _, side in attached(names["model"])} == {"outputs"}


def test_a_penalty_on_density(names, capsys):
    exec(the_snippet("DEFT("), names)
    assert 0 < float(capsys.readouterr().out) <= 1


def test_the_table_names_methods():
    table = (DOCS / "train.md").read_text("utf-8").partition("## All that train")[2]
    firsts = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    named = re.findall(r"`([a-z-]+)`", " ".join(firsts))
    assert len(named) > 8
    assert set(named) <= set(th.catalogue())
