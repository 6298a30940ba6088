"""The gradient of a weight that several places use is the sum over all of its uses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from small_models import llama, tokens
from torch import nn

import thresher as th
from thresher.parts.coverage import cover
from thresher.parts.moments import Gradient
from thresher.prune.memory import gradients_of
from thresher.stream.source import InMemory
from thresher.stream.uses import find_uses

SCALE = torch.linspace(4, 0.1, 16)
RECIPE = th.Recipe(score=th.scores.GradientMagnitude(), density=0.5)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.m, self.b = (nn.Linear(16, 16, bias=False) for _ in range(3))
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(torch.relu(self.m(torch.relu(self.a(x)))) * SCALE)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.m = nn.Linear(16, 16, bias=False), nn.Linear(16, 16)

    def forward(self, x):
        return F.linear(torch.relu(self.m(torch.relu(self.a(x)))) * SCALE, self.a.weight)


class Blocks(nn.Module):
    """The last block has a layer of its own beside the one of the first."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 16))
            for _ in range(3)
        )
        self.blocks[2][0].weight = self.blocks[0][0].weight

    def forward(self, x):
        for block in self.blocks:
            x = block(x) * SCALE
        return x


def gradients(model, samples, loss, **options):
    coverage = cover(model, **options)
    find_uses(InMemory(model), coverage, samples)
    found = gradients_of(InMemory(model), coverage.layers, RECIPE.needs, samples, loss)
    return {name: statistics[Gradient].value for name, statistics in found.items()}


@pytest.mark.parametrize("kind", [Tied, Siamese, Blocks])
def test_every_use_counts(kind):
    torch.manual_seed(0)
    model = kind()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    x = torch.randn(8, 16)

    def loss(model, sample):
        return model(sample).square().mean()

    whole = copy.deepcopy(model)
    whole.zero_grad()
    loss(whole, x).backward()
    for name, found in gradients(model, [x], loss).items():
        right = whole.get_submodule(name).weight.grad
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4 * float(right.abs().max()))
    assert all(bool((p.grad == 1).all()) and p.requires_grad for p in model.parameters())


def test_an_included_head_counts_as_embedding_too():
    model, ids = llama(tied=True), tokens()[:1]
    whole = copy.deepcopy(model)
    whole(input_ids=ids, labels=ids).loss.backward()
    found = gradients(model, [{"input_ids": ids}], None, include=["lm_head"])
    torch.testing.assert_close(found["lm_head"], whole.lm_head.weight.grad)
