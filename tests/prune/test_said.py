"""What changes nothing, or more than it seems to, is said."""

import warnings

import pytest
from small_models import llama
from torch import nn

import thresher as th
from thresher.parts import budgets, patterns, scores
from thresher.parts.coverage import cover
from thresher.prune.recipe import Recipe
from thresher.run.measure.choice import Choices, LayerChoice


def settled(**parts):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Recipe(scores.Magnitude(), **parts).settle()
    return [str(each.message) for each in caught]


def test_a_budget_beside_a_pattern_that_fixes_the_density():
    (said,) = settled(pattern=patterns.NM(2, 4), budget=budgets.OWL())
    assert "budget 'owl' changes nothing" in said
    assert not settled(pattern=patterns.NM(2, 4))
    assert not settled(density=0.5, budget=budgets.OWL())


def test_it_is_said_where_a_model_is_pruned():
    model = nn.Sequential(nn.Linear(8, 8))
    with pytest.warns(UserWarning, match="changes nothing"):
        th.prune(model, "magnitude", pattern="2:4", budget="lamp", progress=False)


def test_a_tied_head_takes_the_embedding_with_it():
    tied, untied = llama(tied=True), llama()
    with pytest.warns(UserWarning, match="'lm_head' shares its weight with an embedding"):
        cover(tied, include=["lm_head"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cover(untied, include=["lm_head"])
        cover(tied)


def choices(density: float, layout: str) -> Choices:
    layer = LayerChoice("x", (8, 8), None, density, "none", layout, 128, 64)
    return Choices([layer], (1,), "2 threads")


def test_nothing_packed():
    assert "Was the model pruned?" in choices(1.0, "dense").table().caption
    assert "no layer is faster" in choices(0.5, "dense").table().caption
    assert choices(0.5, "bitmask").table().caption is None
