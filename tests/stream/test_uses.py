"""Layers are watched where their weights are multiplied, however their modules are called."""

import pytest
import torch
import torch.nn.functional as F
from small_models import llama, tokens
from torch import nn

import thresher as th
from thresher.core.errors import LayerError
from thresher.parts.coverage import find_layers
from thresher.parts.moments import Norm
from thresher.stream.collect import collect_inputs
from thresher.stream.uses import as_used

SCALE = torch.logspace(-1, 1, 16)


class Scaled(nn.Linear):
    def forward(self, x):
        return F.linear(x * SCALE, self.weight, self.bias)


class OnlyWritten(nn.Linear):
    def forward(self, x):
        return super().forward(x)


class Same(nn.Conv2d):
    """Pads by itself, and not as its padding says."""

    def forward(self, x):
        padded = F.pad(x, (0, 1, 0, 1))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Centred(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight - self.weight.mean(), self.bias)


def used(model, *samples):
    layers = as_used(model, find_layers(model), lambda: model(samples[0]))
    found = collect_inputs(model, layers, {Norm}, lambda: [model(x) for x in samples])
    return layers, found


@pytest.mark.parametrize(
    ("kind", "made"), [(Scaled, lambda x: x * SCALE), (OnlyWritten, lambda x: x)]
)
def test_a_layer_that_changes_its_input_is_seen_multiplying(kind, made):
    torch.manual_seed(0)
    model, x = nn.Sequential(kind(16, 8)), torch.randn(32, 16)
    _, found = used(model, x)
    torch.testing.assert_close(found["0"][Norm].value, made(x).square().mean(0).sqrt())


def test_a_convolution_is_seen_with_the_padding_that_it_uses():
    torch.manual_seed(0)
    model, x = nn.Sequential(Same(4, 6, 3, stride=2, padding=1, groups=2)), torch.randn(2, 4, 6, 6)
    plain = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, groups=2))
    _, found = used(model, x)
    _, right = used(plain, F.pad(x, (0, 1, 0, 1)))
    torch.testing.assert_close(found["0"][Norm].value, right["0"][Norm].value)


class OneOutput(nn.Linear):
    def forward(self, x):
        return 2 * x @ self.weight[0]


def test_a_single_output_is_a_product_with_a_vector():
    torch.manual_seed(0)
    model, x = nn.Sequential(OneOutput(16, 1)), torch.randn(32, 16)
    layers, found = used(model, x)
    assert len(layers) == 1
    torch.testing.assert_close(found["0"][Norm].value, 2 * x.square().mean(0).sqrt())


class OwnTransposed(nn.ConvTranspose2d):
    def forward(self, x):
        return F.conv_transpose2d(2 * x, self.weight, self.bias, self.stride)


def test_a_transposed_convolution_is_seen_too():
    torch.manual_seed(0)
    model, x = nn.Sequential(OwnTransposed(4, 6, 3)), torch.randn(2, 4, 6, 6)
    _, found = used(model, x)
    right = 2 * x.square().mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(found["0"][Norm].value, right)


@pytest.mark.parametrize("data", [[torch.randn(2, 4, 6, 6)], None])
def test_a_kernel_that_is_computed_from_the_weight_is_not_understood(data):
    model = nn.Sequential(Standardised(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3))
    method = "wanda" if data else "magnitude"
    record = th.prune(model, method, data, density=0.5, progress=False)
    assert bool((model[0].weight != 0).all())
    assert record.coverage["not_understood"] == {"0.weight": 144}
    assert record.coverage["pruned"] == 144
    assert [layer.name for layer in record.layers] == ["1"]


def test_a_model_of_nothing_else_is_refused():
    with pytest.raises(LayerError, match="computes what it multiplies by"):
        th.prune(nn.Sequential(Centred(8, 8)), "magnitude", density=0.5, progress=False)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, 16, bias=False), nn.Linear(16, 16)

    def forward(self, x):
        y = torch.relu(self.b(self.a(x))) * SCALE
        return F.linear(y, self.a.weight)


def test_a_weight_used_by_its_module_and_by_a_function_counts_both():
    torch.manual_seed(0)
    model, x = Siamese(), torch.randn(32, 16)
    layers, found = used(model, x)
    y = torch.relu(model.b(model.a(x))) * SCALE
    both = torch.cat([x, y]).square().mean(0).sqrt()
    torch.testing.assert_close(found["a"][Norm].value, both)
    assert [layer.is_called for layer in layers] == [False, True]


def test_the_second_use_is_counted_in_a_run():
    torch.manual_seed(0)
    model, x = Siamese(), torch.randn(32, 16)
    dense = model.a.weight.detach().clone()
    y = torch.relu(model.b(model.a(x))) * SCALE
    score = dense.abs() * torch.cat([x, y]).norm(dim=0)
    right = torch.zeros_like(score, dtype=torch.bool).scatter_(1, score.topk(8, 1).indices, True)
    th.prune(model, "wanda", [x], density=0.5, progress=False)
    assert torch.equal(model.a.weight != 0, right)


def test_the_output_head_is_not_run_for_it():
    model, ran = llama(), []
    model.lm_head.register_forward_hook(lambda *_: ran.append(True))
    as_used(model, find_layers(model), lambda: model(input_ids=tokens()[:1]))
    assert not ran
    as_used(model, find_layers(model, include=["lm_head"]), lambda: model(input_ids=tokens()[:1]))
    assert ran


def test_ordinary_layers_are_watched_in_their_calls():
    model = llama()
    layers = as_used(model, find_layers(model), lambda: model(input_ids=tokens()[:1]))
    assert all(layer.is_called and not layer.readers for layer in layers)
