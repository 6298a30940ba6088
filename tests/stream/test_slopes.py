"""Slopes along random directions tell the norm of the gradient, from memory and from disk."""

import pytest
import torch
from model_folders import save_folder
from small_models import llama, mlp, tokens, vectors
from torch import nn

from thresher.core.errors import DataError, NumericalError
from thresher.parts.coverage import find_layers
from thresher.parts.moments import Gradient, Slope
from thresher.prune.losses import default_loss
from thresher.run.skeleton import Skeleton
from thresher.stream.gradients import collect_gradients
from thresher.stream.passes import calibrating
from thresher.stream.precision import Precision
from thresher.stream.slopes import SAMPLES, collect_slopes
from thresher.stream.source import Folder, InMemory
from thresher.stream.units import find_units


def windows(count):
    return [{"input_ids": window[None]} for window in tokens(count)]


def found(source, samples, loss=default_loss):
    layers = find_layers(source.model)
    with calibrating(source.model):
        return collect_slopes(source, find_units(source.model, layers), {Slope}, samples, loss)


def test_they_estimate_the_norm_of_every_units_gradient():
    model, samples = llama(), windows(1) * (SAMPLES + 1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    slopes = found(InMemory(model), samples)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    units = find_units(model, find_layers(model))
    exact = collect_gradients(InMemory(model), units, {Gradient}, samples[:1], default_loss)
    assert len(units) == 3
    for unit in units:
        squares = [exact[layer.name][Gradient].value.square().sum() for layer in unit.layers]
        # A mean of 32 squares of normal numbers is a quarter off.
        for layer in unit.layers:
            value = float(slopes[layer.name][Slope].value)
            assert value == pytest.approx(float(sum(squares)) ** 0.5, rel=0.4)
            assert int(slopes[layer.name][Slope].count) == SAMPLES


def test_a_folder_gives_the_same_as_memory(tmp_path):
    model, samples = llama(vocab_size=256, tied=True), windows(2)
    folder = Folder(
        Skeleton(save_folder(model, tmp_path / "model"), None),
        Precision(torch.float32, torch.float32),
    )
    expected, loaded = found(InMemory(model), samples), found(folder, samples)
    assert expected.keys() == loaded.keys()
    for name, statistics in expected.items():
        torch.testing.assert_close(loaded[name][Slope].value, statistics[Slope].value)
    assert all(p.is_meta for p in folder.model.model.layers.parameters())


class Partly(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        return self.used(x)


def square(model, sample):
    return model(sample).square().mean()


def test_what_the_loss_does_not_depend_on_sees_none():
    slopes = found(InMemory(Partly()), [vectors()], square)
    assert slopes["used"].saw_any(Slope)
    with pytest.raises(DataError, match="'idle' was given no slopes"):
        slopes["idle"][Slope]


def test_weights_are_put_back_where_the_loss_fails():
    model = mlp()
    before = model[0].weight.detach().clone()
    with pytest.raises(NumericalError, match="where layer '0' is perturbed"):
        found(InMemory(model), [vectors()], lambda model, sample: model(sample).sum() * torch.nan)
    with pytest.raises(ZeroDivisionError):
        found(InMemory(model), [vectors()], lambda model, sample: 1 / 0)
    assert torch.equal(model[0].weight, before)
