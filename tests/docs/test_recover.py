"""The snippets of the guide on recovering accuracy, as somebody who follows it."""

import copy
from functools import partial

import torch
from model_folders import tiny_llama
from pages import snippet

import thresher as th

the_snippet = partial(snippet, "recover")


def names():
    model = tiny_llama(layers=1)
    dense = copy.deepcopy(model)
    th.prune(model, "magnitude", pattern="2:4", progress=False)
    return {"model": model, "dense": dense, "th": th, "torch": torch}


def check(model):
    weight = model.model.layers[0].mlp.up_proj.weight
    assert int((weight == 0).sum()) == weight.numel() // 2


def test_healing_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = names() | {"texts": torch.randint(256, (6, 16))}
    exec(the_snippet("th.heal(").replace("minutes=30", "minutes=0.02, progress=False"), given)
    check(given["model"])
    assert (tmp_path / "healed" / "thresher.json").is_file()


def test_a_loop_of_ones_own():
    given = names() | {"batches": torch.randint(256, (3, 2, 16))}
    exec(the_snippet("with th.hold("), given)
    check(given["model"])


def test_the_trainer(tmp_path):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, report_to=[], use_cpu=True, weight_decay=0.1
    )
    ids = torch.arange(16)
    rows = [{"input_ids": ids, "labels": ids} for _ in range(16)]
    given = names() | {"Trainer": Trainer, "arguments": arguments, "rows": rows}
    before = given["model"].model.layers[0].mlp.up_proj.weight.detach().clone()
    exec(the_snippet("HoldZeros"), given)
    check(given["model"])
    assert not torch.equal(given["model"].model.layers[0].mlp.up_proj.weight, before)


def test_an_adapter():
    given = names()
    weight = given["model"].model.layers[0].mlp.up_proj.weight

    def merge():
        with torch.no_grad():
            weight.add_(1)

    exec(the_snippet("zeros.apply()").replace("...  #", "merge()  #"), given | {"merge": merge})
    check(given["model"])
