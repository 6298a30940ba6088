import torch
from small_models import images, llama, mlp, tokens, vectors
from torch import nn

from thresher.parts.layers import find_layers
from thresher.parts.moments import Gradient, Gram, Norm, SquaredGradient
from thresher.stream.blocks import call
from thresher.stream.collect import collect_gradients, collect_inputs


def test_inputs_are_those_the_layers_were_given():
    model, x = mlp(), vectors()
    found = collect_inputs(find_layers(model), {Norm, Gram}, lambda: model(x))
    torch.testing.assert_close(found["0"][Norm].mean, x.mean(0))
    hidden = model[:2](x).detach()
    torch.testing.assert_close(found["2"][Gram].value, hidden.T @ hidden / len(x))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_layers_with_the_same_input_share_moments():
    model = llama()
    layers = find_layers(model)
    found = collect_inputs(
        layers, {Gram}, lambda: [call(model, {"input_ids": row[None]}) for row in tokens()]
    )
    attention = "model.layers.1.self_attn"
    assert found[f"{attention}.q_proj"][Gram].value is not None
    q, k = found[f"{attention}.q_proj"][Gram].value, found[f"{attention}.k_proj"][Gram].value
    assert q.data_ptr() == k.data_ptr()
    assert found[f"{attention}.k_proj"].name == f"{attention}.k_proj"


class ChangedInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        x = x.clone()
        y = self.first(x)
        x.mul_(3)
        return y + self.second(x)


def test_an_input_changed_in_place_is_another_input():
    model, x = ChangedInPlace(), vectors()
    found = collect_inputs(find_layers(model), {Norm}, lambda: model(x))
    torch.testing.assert_close(found["first"][Norm].mean, x.mean(0))
    torch.testing.assert_close(found["second"][Norm].mean, 3 * x.mean(0))


class TwoReadings(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 4, 5, padding=2)
        self.narrow = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.wide(x) + self.narrow(x)


def test_convolutions_that_read_one_input_differently_share_nothing():
    model, x = TwoReadings(), images()
    found = collect_inputs(find_layers(model), {Gram}, lambda: model(x))
    assert found["wide"][Gram].value.shape == (75, 75)
    assert found["narrow"][Gram].value.shape == (3, 3)


def test_gradients_are_those_of_autograd():
    model = mlp()
    samples = list(vectors(8).split(2))
    layers = find_layers(model)

    def loss(model, sample):
        return model(sample).square().mean()

    model[0].weight.requires_grad_(False)
    found = collect_gradients(model, layers, {Gradient, SquaredGradient}, samples, loss)
    assert not model[0].weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    model[0].weight.requires_grad_(True)
    gradients = [torch.autograd.grad(loss(model, s), model[2].weight)[0] for s in samples]
    torch.testing.assert_close(found["2"][Gradient].value, torch.stack(gradients).mean(0))
    squared = torch.stack(gradients).square().mean(0)
    torch.testing.assert_close(found["2"][SquaredGradient].value, squared)
