"""Pruning in steps, each from data seen by what the step before it left."""

import copy

import pytest
import torch
from small_models import mlp, vectors

import thresher as th
from thresher.core.errors import OptionError
from thresher.parts.schedules import Cubic, Linear
from thresher.prune import gradual
from thresher.prune.gradual import prune_gradually


def loss(model, sample):
    return model(sample[None]).square().mean()


def densities(monkeypatch, **options):
    seen, original = [], gradual.prune

    def prune(model, recipe, data, **more):
        seen.append(recipe.target)
        return original(model, recipe, data, **more)

    monkeypatch.setattr(gradual, "prune", prune)
    model = mlp()
    record = prune_gradually(model, "magnitude", density=0.2, **options)
    kept = sum(int((layer.weight != 0).sum()) for layer in model if hasattr(layer, "weight"))
    assert kept == sum(layer.kept for layer in record.layers)
    assert record.density == pytest.approx(0.2, abs=1e-3)
    return seen


def test_densities_fall_along_the_schedule(monkeypatch):
    assert densities(monkeypatch, steps=4) == pytest.approx([0.5375, 0.3, 0.2125, 0.2])
    assert densities(monkeypatch, steps=2, schedule="linear") == pytest.approx([0.6, 0.2])
    assert densities(monkeypatch, steps=2, schedule=Linear(0.9)) == pytest.approx([0.6, 0.2])


def test_every_step_sees_the_model_that_the_one_before_left():
    first, second = mlp(), mlp()
    data = list(vectors(12))
    prune_gradually(first, "m-fac", data, density=0.3, steps=2, loss=loss, progress=False)
    half = 0.3 + 0.7 * Cubic().remaining(0.5)
    for density in (half, 0.3):
        th.prune(second, "m-fac", data, density=density, loss=loss, progress=False)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_one_step_is_one_shot():
    first, second = mlp(), mlp()
    prune_gradually(first, "magnitude", density=0.3, steps=1, progress=False)
    th.prune(second, "magnitude", density=0.3, progress=False)
    assert torch.equal(first[0].weight, second[0].weight)


def test_bad_options_are_named_before_anything_changes():
    model = mlp()
    before = copy.deepcopy(model)
    with pytest.raises(OptionError, match=r"pattern 2:4 implies its density"):
        prune_gradually(model, "magnitude", density=0.5, steps=2, pattern="2:4")
    with pytest.raises(OptionError, match="steps"):
        prune_gradually(model, "magnitude", density=0.5, steps=0)
    with pytest.raises(OptionError, match=r"density 1\.5 is out of range"):
        prune_gradually(model, "magnitude", density=1.5, steps=2)
    assert torch.equal(model[0].weight, before[0].weight)


def test_gradients_that_no_machine_has_room_for_are_refused(monkeypatch):
    monkeypatch.setattr("thresher.prune.memory.memory", lambda: 4 * 12 * 1791)
    data = list(vectors(12))
    with pytest.raises(OptionError, match=r"12 gradients of 1792 weights take 0 GiB"):
        th.prune(mlp(), "m-fac", data, density=0.3, loss=loss, progress=False)
    assert th.prune(mlp(), "m-fac", data[:11], density=0.3, loss=loss, progress=False)
