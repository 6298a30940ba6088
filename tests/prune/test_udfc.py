"""Channels that are removed without data, and what the next layer makes of those that stay."""

import copy

import pytest
import torch
from small_models import cnn
from torch import nn

from thresher.core.errors import LayerError, NumericalError, OptionError
from thresher.prune.udfc import UDFC, combination


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 16, 10),
    ).eval()
    norm = model[1]
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.copy_(torch.rand(6) + 0.5)
    return model


def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_combination_is_the_ridge_solution():
    torch.manual_seed(0)
    kept, removed = torch.randn(3, 7), torch.randn(2, 7)
    penalty = 0.1 * kept.square().sum(1).mean()
    system = torch.cat([kept, penalty.sqrt() * torch.eye(3)], dim=1)
    right = torch.cat([removed, torch.zeros(2, 3)], dim=1)
    expected = torch.linalg.lstsq(system.mT, right.mT).solution.mT
    torch.testing.assert_close(combination(kept, removed, 0.1), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_channel_that_others_make_up_through_a_normalisation_is_removed_without_loss():
    model, x = network()[:4], images()
    conv, norm = model[0], model[1]
    # What the normalisation makes of channel 4 is half of what it makes of channel 1.
    norm.bias += 2  # so that the ReLU passes something on
    norm.weight *= 10
    norm.bias *= 10
    norm.weight[1], norm.bias[1] = norm.weight[1] / 10, norm.bias[1] / 10
    conv.weight[4], conv.bias[4] = conv.weight[1] / 5, conv.bias[1] / 5
    norm.eps = 0.0
    norm.running_mean[4], norm.running_var[4] = norm.running_mean[1] / 5, norm.running_var[1] / 25
    norm.weight[4], norm.bias[4] = norm.weight[1] / 2, norm.bias[1] / 2
    before = model(x)
    assert UDFC(ridge=1e-7).prune(model, density=5 / 6) == {"0": [4]}
    torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_without_loss_by_one_layer():
    torch.manual_seed(0)
    first, second = nn.Linear(5, 4), nn.Linear(4, 3)
    first.weight[3], first.bias[3] = 0.1 * first.weight[1], 0.1 * first.bias[1]
    model = nn.Sequential(first, nn.ReLU(), second)
    x = torch.randn(20, 5)
    before = model(x)
    assert UDFC(ridge=1e-7).prune(model, density=0.75) == {"0": [3]}
    torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-4)
    assert bool((first.weight[3] == 0).all())
    assert float(first.bias[3]) == 0
    assert bool((second.weight[:, 3] == 0).all())


@torch.no_grad()
def test_removed_channels_say_nothing_and_counts_are_kept():
    model = network()
    removed = UDFC().prune(model, density=0.5)
    assert {name: len(channels) for name, channels in removed.items()} == {"0": 3, "3": 4}
    silent = model[:3](images())
    assert bool((silent[:, removed["0"]] == 0).all())
    flattened = model[7].weight.reshape(10, 8, 16)
    assert bool((flattened[:, removed["3"]] == 0).all())
    assert bool((flattened.abs().sum((0, 2)) != 0).sum() == 4)


def test_keeping_all_changes_nothing():
    model = network()
    before = copy.deepcopy(model.state_dict())
    assert UDFC().prune(model, density=1.0) == {"0": [], "3": []}
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name])


def test_bad_input_is_named():
    with pytest.raises(OptionError, match="ridge 0 is out of range"):
        UDFC(ridge=0)
    with pytest.raises(OptionError, match=r"density 0 is out of range"):
        UDFC().prune(network(), density=0)
    with pytest.raises(LayerError, match=r"_ConvolutionalNetwork is no nn\.Sequential"):
        UDFC().prune(cnn(), density=0.5)
    for between in (nn.LayerNorm(4), nn.Flatten()):
        with pytest.raises(LayerError, match="no layer of the model feeds another"):
            UDFC().prune(nn.Sequential(nn.Linear(4, 4), between, nn.Linear(4, 2)), density=0.5)
    model = network()
    model[3].weight.data[0, 0, 0, 0] = torch.nan
    before = model[0].weight.clone()
    with pytest.raises(NumericalError, match="'3' has 1 NaN"):
        UDFC().prune(model, density=0.5)
    assert torch.equal(model[0].weight, before)


def test_filters_that_are_alike_ask_for_more_ridge():
    with pytest.raises(NumericalError, match=r"too alike for ridge=1e-12: .*; raise ridge"):
        combination(torch.ones(3, 4), torch.ones(1, 4), 1e-12)
