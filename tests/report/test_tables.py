"""The tables that the terminal shows."""

import pytest
from rich.console import Console

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
