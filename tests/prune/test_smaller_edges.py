"""Smaller models at the edges: odd modules, odd densities, and modules rebuilt from folders."""

import copy

import numpy as np
import pytest
import torch
from coupled_nets import ResNet, built
from small_models import llama, tokens
from torch import nn
from torch.nn.utils import parametrizations

import thresher as th
from thresher.core.errors import CheckpointError, DataError, LayerError, OptionError
from thresher.core.remembered import remembered
from thresher.parts.spreads import PerKind, Ranked
from thresher.prune.structured import Structured


class Net(nn.Module):
    """Two convolutions and a head of so many classes."""

    def __init__(self, classes=5, act=nn.ReLU):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), act(), nn.Conv2d(16, 8, 3), act())
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def net(**options):
    torch.manual_seed(0)
    return Net(**options).eval()


def spectral():
    found = net()
    parametrizations.spectral_norm(found.body[0])
    return found


def smaller(model, density=0.5, **options):
    return th.prune(model, "spa", density=density, example=X, progress=False, **options)


def test_what_computes_its_weight_is_rebuilt_also_in_training(tmp_path):
    small = smaller(spectral())
    th.save(small, tmp_path / "small")
    again = th.rebuild(spectral().train(), tmp_path / "small")
    assert again.training
    # The norm of the same weights, read into memory of another alignment, may be rounded otherwise.
    torch.testing.assert_close(again.eval()(X), small(X), rtol=1e-5, atol=1e-6)


def test_a_module_with_another_head_is_not_rebuilt(tmp_path):
    th.save(smaller(net()), tmp_path / "small")
    with pytest.raises(CheckpointError, match=r"'head.weight' is of shape \(6, 8\)"):
        th.rebuild(Net(classes=6), tmp_path / "small")


def test_what_was_made_smaller_twice_is_rebuilt_from_the_first(tmp_path):
    twice = smaller(smaller(built(ResNet), 0.8), 0.7)
    th.save(twice, tmp_path / "small")
    again = th.rebuild(ResNet().eval(), tmp_path / "small")
    assert torch.equal(again(X), twice(X))
    assert again.stem[0].out_channels < ResNet().stem[0].out_channels


def test_the_order_in_memory_stays():
    small = smaller(net().to(memory_format=torch.channels_last))
    weight = small.body[2].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert smaller(net()).body[2].weight.is_contiguous()


@pytest.mark.parametrize("method", ["spa", "structured", "two-ssp"])
def test_a_density_that_removes_nothing_names_the_nearest(method):
    data = [X, X]
    with pytest.raises(OptionError, match=r"with one less the density is 0\.9"):
        th.prune(net(), method, data, density=0.9999, progress=False)


def test_a_kind_that_comes_nearer_has_the_last_step():
    # A step of "wide" is 40 weights, one of "narrow" 3; both cost as much for each weight.
    groups = [
        Ranked("wide", np.full(4, 40.0), "wide"),
        Ranked("narrow", np.full(20, 3.1), "narrow"),
    ]

    def weights(removed):
        return 220 - 40 * len(removed.get("wide", ())) - 3 * len(removed.get("narrow", ()))

    found = PerKind()(groups, weights, 165)
    assert weights(found) == 165


def test_what_is_far_from_the_density_is_said():
    coarse = Structured(spread=PerKind(multiple=16), density=0.9)
    with pytest.warns(UserWarning, match=r"density 0\.9 was asked for, and 0\."):
        th.prune(llama(), coarse, tokens(), progress=False)


def test_activations_that_torch_does_not_tag():
    dense = net(act=nn.Hardswish)
    small = smaller(dense)
    assert small.body[0].out_channels < 16
    masked = copy.deepcopy(dense)
    for group, units in remembered(small).structure["removed"].items():
        name = group.partition("[")[0]
        masked.get_parameter(name).data[units] = 0
        masked.get_parameter(name.replace("weight", "bias")).data[units] = 0
    torch.testing.assert_close(small(X), masked(X))


def test_recurrent_layers_have_no_bias_to_make_up_in():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.gru = nn.Linear(6, 12), nn.GRU(12, 8, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.gru(self.up(x))[0])

    x = torch.randn(2, 5, 6)
    small = th.prune(Recurrent().eval(), "flap", [x], density=0.9, progress=False)
    assert small(x).shape == (2, 5, 3)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_cannot_be_copied_says_how_it_can():
    model = net()
    torch.nn.utils.weight_norm(model.body[2])
    model(X)
    with pytest.raises(LayerError, match=r"remove_weight_norm or torch\.nn"):
        smaller(model)


def test_data_that_does_not_fit_or_shows_nothing():
    with pytest.raises(DataError, match="Net does not run on the data, a tensor of shape"):
        th.prune(net(), "obspa", [X[:, :2]], density=0.5, example=X, progress=False)
    with pytest.raises(DataError, match="the example holds numbers that are not finite"):
        th.prune(net(), "spa", density=0.5, example=X * torch.nan, progress=False)


def test_what_is_no_model_in_memory():
    with pytest.raises(OptionError, match=r"'0\.5' is out of range"):
        smaller(net(), "0.5")
    with pytest.raises(LayerError, match=r"'body\.0' is not in memory"):
        smaller(net().to("meta"))
    with pytest.raises(OptionError, match="was compiled from"):
        smaller(torch.jit.trace(net(), X))
