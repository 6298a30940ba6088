"""The kept entries of weights as vectors, and AdamW that has state for these alone."""

import copy
import math

import pytest
import torch
from torch import nn

from thresher.core.errors import LayerError, NumericalError, OptionError
from thresher.parts.kept import Kept
from thresher.parts.kept_adam import KeptAdamW


def pruned_network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight *= torch.rand_like(layer.weight) > 0.6
    return model


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 12, generator=generator, dtype=torch.float64)


def test_gather_and_fill_are_inverse():
    weight = torch.tensor([[0.0, 2.0, 0.0], [4.0, 0.0, 6.0]])
    kept = Kept(weight)
    assert len(kept) == 3
    assert kept.gather(weight).tolist() == [2, 4, 6]
    again = torch.full_like(weight, 9.0)
    kept.fill(again, kept.gather(weight))
    assert torch.equal(again, weight)


def test_a_support_keeps_zeros_that_it_names():
    kept = Kept(torch.zeros(2, 2), torch.tensor([[True, False], [False, True]]))
    assert kept.gather(torch.arange(4.0).reshape(2, 2)).tolist() == [0, 3]


def test_a_gathered_dense_weight_is_a_copy():
    weight = torch.ones(3)
    Kept(weight).gather(weight).zero_()
    assert weight.tolist() == [1, 1, 1]


def test_weights_that_are_not_contiguous_are_refused():
    with pytest.raises(LayerError, match="contiguous"):
        Kept(torch.ones(3, 2).T)


@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("passes", [1, 3])
def test_it_is_adamw_of_the_masked_problem(max_norm, passes):
    ours, theirs = pruned_network(), pruned_network()
    options = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}
    optimizer = KeptAdamW(ours.parameters(), **options, max_norm=max_norm)
    reference = torch.optim.AdamW(theirs.parameters(), **options)
    masks = {p: p != 0 for p in theirs.parameters()}
    for step in range(30):
        for model in (ours, theirs):
            for each in range(passes):
                (model(batch(10 * step + each)).square().sum() / passes).backward()
        for parameter, mask in masks.items():
            parameter.grad *= mask
        if max_norm is not None:
            # Theirs adds 1e-6 to the norm, which would show.
            norm = math.sqrt(sum(float(p.grad.square().sum()) for p in masks))
            for parameter in masks:
                parameter.grad *= min(1.0, max_norm / norm)
        optimizer.step()
        reference.step()
        reference.zero_grad()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, theirs.get_parameter(name), rtol=0, atol=1e-6)
        assert torch.equal(parameter == 0, ~masks[theirs.get_parameter(name)])


def test_its_state_is_as_long_as_the_kept_weights_are_many():
    model = pruned_network()
    optimizer = KeptAdamW(model.parameters())
    model(batch(0)).sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    optimizer.step()
    for parameter in model.parameters():
        held = optimizer.state[parameter]
        assert held["exp_avg"].shape == (int(torch.count_nonzero(parameter)),)
        assert held["exp_avg_sq"].shape == held["exp_avg"].shape


def test_it_goes_on_from_its_state_dict():
    models = [pruned_network(), pruned_network()]
    first, second = (KeptAdamW(model.parameters(), lr=0.05) for model in models)
    for step in range(4):
        models[0](batch(step)).square().sum().backward()
        first.step()
        if step == 1:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
            models[1].load_state_dict(models[0].state_dict())
        elif step > 1:
            models[1](batch(step)).square().sum().backward()
            second.step()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_gradient_that_is_not_finite_changes_nothing():
    model = pruned_network()
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = KeptAdamW(model.parameters())
    (model(batch(0)).sum() * math.nan).backward()
    with pytest.raises(NumericalError, match="lower the learning rate"):
        optimizer.step()
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


def test_once_closed_gradients_are_the_users_again():
    model = pruned_network()
    KeptAdamW(model.parameters()).close()
    model(batch(0)).sum().backward()
    assert model[0].weight.grad is not None


@pytest.mark.parametrize(
    "wrong", [{"lr": -1}, {"betas": (1.0, 0.9)}, {"eps": -1}, {"weight_decay": -1}, {"max_norm": 0}]
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        KeptAdamW(pruned_network().parameters(), **wrong)
