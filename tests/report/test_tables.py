"""The tables that the terminal shows."""

import pytest
from rich.console import Console

from thresher.report.html import render
from thresher.report.structure import structure_rows
from thresher.report.tables import kind_table, layer_table, recipe_table, summary_table


def shown(table) -> str:
    console = Console(width=100, file=None, record=True, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def row(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"│ {start} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_summary_has_every_figure(record):
    text = shown(summary_table(record))
    assert row(text, "density asked")[1] == "50 %"
    assert row(text, "density reached")[1] == "50.44 %"
    assert row(text, "perplexity, dense")[1] == "20"
    assert row(text, "perplexity, pruned")[1] == "45 (2.25x)"
    assert row(text, "on disk, sparse")[1] == "185.0 MB (0.688x)"
    assert row(text, "peak memory")[1] == "1.8 GB"
    assert row(text, "time")[1] == "20 s"
    record.timings["measuring"] = 168.0
    assert row(shown(summary_table(record)), "time")[1] == "20 s to prune, 2 min 48 s to measure"


@pytest.mark.parametrize("missing", ["dense_perplexity", "pruned_perplexity", "sparse_bytes"])
def test_what_was_not_measured_is_said(record, missing):
    del record.evaluation[missing]
    assert shown(summary_table(record)).count("not measured") == 1


def test_kinds_and_layers(record):
    kinds = shown(kind_table(record))
    assert row(kinds, "q_proj") == ["q_proj", "4", "12,288", "50.34 %", "0.23"]
    layers = shown(layer_table(record))
    assert row(layers, "model.layers.0.q_proj")[1:] == ["64x48", "1,536", "50 %", "0.02"]
    assert "on disk" not in layers


def test_bytes_on_disk_are_shown_when_known(record):
    text = shown(layer_table(record, {"model.layers.0.q_proj": 3456}))
    assert row(text, "model.layers.0.q_proj")[-1] == "3.5 kB"
    assert row(text, "model.layers.0.k_proj")[-1] == "not measured"


def test_the_recipe_is_shown_as_it_is(record):
    record.recipe = "Recipe([bold]x[/bold])"
    text = shown(recipe_table(record))
    assert "Recipe([bold]x[/bold])" in text
    assert "windows: 64" in text
    assert "torch 2.13.0" in text


def test_what_was_removed_of_a_smaller_model_and_what_stayed_is_said(record):
    assert structure_rows(record) == {}
    record.structure = {
        "weights": {"before": 1000, "after": 800},
        "removed": {
            "model.layers.0.mlp.gate_proj.weight[0]": [1, 5, 7],
            "model.layers.1.mlp.gate_proj.weight[0]": [0, 2, 3],
            "model.layers.1.self_attn.q_proj.weight[0]": [2],
        },
        "whole": {
            "lm_head.weight[0]": "it is an axis of the module's output",
            "a.0.weight[1]": "mean in norm.0 normalises over it",
            "a.1.weight[1]": "mean in norm.1 normalises over it",
        },
    }
    rows = structure_rows(record)
    assert rows["weights that stay"] == "800 of 1,000 in the layers covered (80 %)"
    assert rows["of gate_proj and what goes with it"] == "3 units in 2 places"
    assert rows["of q_proj and what goes with it"] == "1 unit in 1 place"
    assert rows["left whole"] == (
        "2 such as a.0.weight[1]: mean in norm.0 normalises over it; 1 such as lm_head.weight[0]: "
        "it is an axis of the module's output"
    )
    assert record.density == 0.8
    assert "3 units in 2 places" in shown(recipe_table(record))
    assert "3 units in 2 places" in render(record)
