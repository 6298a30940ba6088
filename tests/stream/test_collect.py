import pytest
import torch
from small_models import bert, gpt2, images, llama, mlp, tokens, vectors
from torch import nn

from thresher.parts.coverage import find_layers
from thresher.parts.moments import Gradient, Gram, Norm, SquaredGradient
from thresher.stream.collect import collect_inputs
from thresher.stream.gradients import collect_gradients
from thresher.stream.passes import call
from thresher.stream.source import InMemory
from thresher.stream.units import find_units
from thresher.stream.uses import as_used


def test_inputs_are_those_the_layers_were_given():
    model, x = mlp(), vectors()
    found = collect_inputs(model, find_layers(model), {Norm, Gram}, lambda: model(x))
    torch.testing.assert_close(found["0"][Norm].mean, x.mean(0))
    hidden = model[:2](x).detach()
    torch.testing.assert_close(found["2"][Gram].value, hidden.T @ hidden / len(x))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_layers_with_the_same_input_share_moments():
    model = llama()
    layers = find_layers(model)
    found = collect_inputs(
        model, layers, {Gram}, lambda: [call(model, {"input_ids": row[None]}) for row in tokens()]
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
    found = collect_inputs(model, find_layers(model), {Norm}, lambda: model(x))
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
    found = collect_inputs(model, find_layers(model), {Gram}, lambda: model(x))
    assert found["wide"][Gram].value.shape == (75, 75)
    assert found["narrow"][Gram].value.shape == (3, 3)


def test_gradients_are_those_of_autograd():
    model = mlp()
    samples = list(vectors(8).split(2))
    layers = find_layers(model)

    def loss(model, sample):
        return model(sample).square().mean()

    model[0].weight.requires_grad_(False)
    needs = {Gradient, SquaredGradient}
    units = find_units(model, layers)
    found = collect_gradients(InMemory(model), units, needs, samples, loss)
    assert not model[0].weight.requires_grad
    assert model[2].weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert not any("forward" in module.__dict__ for module in model.modules())
    model[0].weight.requires_grad_(True)
    gradients = [torch.autograd.grad(loss(model, s), model[2].weight)[0] for s in samples]
    torch.testing.assert_close(found["2"][Gradient].value, torch.stack(gradients).mean(0))
    squared = torch.stack(gradients).square().mean(0)
    torch.testing.assert_close(found["2"][SquaredGradient].value, squared)


@pytest.mark.parametrize("make", [llama, gpt2, bert])
def test_gradients_through_blocks_are_those_of_the_whole_model(make):
    """Every block hands on the gradient of its inputs, and of a tied or masked model too."""
    model = make()
    ids = tokens(2)

    def loss(model, sample):
        return model(input_ids=sample)[0].square().mean()

    layers = find_layers(model)
    found = collect_gradients(InMemory(model), find_units(model, layers), {Gradient}, [ids], loss)
    expected = torch.autograd.grad(
        loss(model, ids), [layer.weight for layer in layers], materialize_grads=True
    )
    for layer, gradient in zip(layers, expected, strict=True):
        torch.testing.assert_close(found[layer.name][Gradient].value, layer.matrix(gradient))


class Siamese(nn.Module):
    """Two branches share the first layer; the second one is only called for one of them."""

    def __init__(self):
        super().__init__()
        self.shared, self.once = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        return self.shared(x) + self.once(x) + self.shared(2 * x)


def test_a_layer_called_more_often_than_its_leader_was_shares_nothing():
    model, x = Siamese(), vectors()
    found = collect_inputs(model, find_layers(model), {Norm}, lambda: model(x))
    torch.testing.assert_close(found["once"][Norm].mean, x.mean(0))
    torch.testing.assert_close(found["shared"][Norm].mean, 1.5 * x.mean(0))
    assert (found["once"].tokens, found["shared"].tokens) == (64, 128)


def test_a_layer_called_twice_with_one_tensor_counts_it_twice():
    model = nn.Module()
    model.qk = nn.Linear(16, 4)
    x = vectors()
    found = collect_inputs(model, find_layers(model), {Norm}, lambda: (model.qk(x), model.qk(x)))
    assert found["qk"].tokens == 128


def test_layers_called_by_keyword_are_seen():
    model = mlp()
    x = vectors()
    found = collect_inputs(model, find_layers(model)[:1], {Norm}, lambda: model[0](input=x))
    torch.testing.assert_close(found["0"][Norm].mean, x.mean(0))


class ByHand(nn.Module):
    """Weights that are used, and never called."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(16, 4, bias=False), nn.Linear(16, 4)

    def forward(self, x):
        return self.left.weight @ x.mT, torch.addmm(self.right.bias, x, self.right.weight.T)


def test_weights_used_without_a_call_are_seen():
    model, x = ByHand(), vectors()
    found = collect_inputs(model, find_layers(model), {Gram}, lambda: model(x))
    for name in ("left", "right"):
        assert found[name].tokens == 64
        torch.testing.assert_close(found[name][Gram].value, x.T @ x / 64)


def test_projections_of_attention_are_given_their_own_inputs():
    attention = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    query, key, value = (vectors(8, seed=s).unsqueeze(0) for s in range(3))
    layers = find_layers(attention)
    assert [layer.name for layer in layers] == [
        *(f"in_proj_weight[{part}]" for part in range(3)),
        "out_proj",
    ]
    found = collect_inputs(attention, layers, {Norm}, lambda: attention(query, key, value))
    for part, given in enumerate((query, key, value)):
        torch.testing.assert_close(found[f"in_proj_weight[{part}]"][Norm].mean, given[0].mean(0))
    assert found["out_proj"].tokens == 8


def test_recurrent_layers_are_given_inputs_and_states():
    lstm = nn.LSTM(16, 4, num_layers=2, batch_first=True).eval()
    x = vectors(10).unsqueeze(0)
    found = collect_inputs(lstm, find_layers(lstm), {Norm}, lambda: lstm(x))
    states, _ = nn.LSTM.forward(lstm, x)
    torch.testing.assert_close(found["weight_ih_l0"][Norm].mean, x[0].mean(0))
    assert found["weight_hh_l0"].tokens == 10
    assert found["weight_ih_l1"].tokens == 10
    assert states.shape == (1, 10, 4)


class Experts(nn.Module):
    def __init__(self, turned):
        super().__init__()
        self.num_experts, self.is_transposed = 3, turned
        shape = (3, 16, 4) if turned else (3, 4, 16)
        self.up = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        parts = x.split(16)
        ups = self.up if self.is_transposed else self.up.mT
        return torch.cat([part @ up for part, up in zip(parts, ups[:2], strict=False)])


@pytest.mark.parametrize("turned", [False, True])
def test_every_expert_is_given_its_own_tokens(turned):
    model, x = Experts(turned), vectors(32)
    layers = find_layers(model)
    assert [layer.shape for layer in layers] == [(4, 16)] * 3
    found = collect_inputs(model, layers, {Norm}, lambda: model(x))
    for expert in range(2):
        rows = x[16 * expert : 16 * (expert + 1)]
        torch.testing.assert_close(found[f"up[{expert}]"][Norm].mean, rows.mean(0))
    assert found["up[2]"].tokens == 0


def test_the_way_a_weight_is_stored_is_read_off_its_use():
    model = Experts(turned=True)
    model.is_transposed = False
    wrong = find_layers(model)
    assert wrong[0].shape == (16, 4)
    model.is_transposed = True
    right = as_used(model, wrong, lambda: model(vectors(32)))
    # The third expert got no token, and is stored as the others are.
    assert [layer.shape for layer in right] == [(4, 16)] * 3


def test_weights_converted_before_they_are_used_are_seen():
    model, x = Experts(turned=False), vectors(32)

    def run():
        weight = model.up.to(torch.float64)
        return x[:16].double() @ weight[0].mT

    assert collect_inputs(model, find_layers(model), {Norm}, run)["up[0]"].tokens == 16
