"""What a record says of a layer: the error of its outputs, and the block whose budget it has."""

import pytest
import torch
from torch import nn

import thresher as th
from thresher.parts import budgets


class Blocks(nn.Module):
    """Blocks that hand on what they are given, so that only their weights tell them apart."""

    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = x + 0 * block(x)
        return x


def test_the_error_of_a_layer_is_that_of_its_outputs():
    torch.manual_seed(0)
    layer = nn.Linear(8, 4, bias=False)
    with torch.no_grad():
        layer.weight[:, :4] *= 0.01  # what magnitude removes
    dense = layer.weight.detach().clone()
    x = torch.randn(1, 8).repeat(64, 1)  # alike, as the error is that of a sample of them
    x[:, :4] *= 30
    seen = th.scores.Magnitude() + 0 * th.scores.InputNorm()  # whose inputs are looked at
    recipe = th.Recipe(score=seen, density=0.5)
    record = th.prune(nn.Sequential(layer), recipe, [x], progress=False).layers[0]
    change = layer.weight.detach() - dense
    outputs = float((x @ change.mT).square().sum() / (x @ dense.mT).square().sum())
    weights = float(change.square().sum() / dense.square().sum())
    assert record.error == pytest.approx(outputs, rel=1e-3)
    assert outputs > 10 * weights


def test_a_survey_keeps_blocks_apart():
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(64, 64, bias=False)) for _ in range(3)]
    with torch.no_grad():
        blocks[2][0].weight[:4] *= 50  # outliers, which OWL spares
    recipe = th.Recipe(
        score=th.scores.Magnitude() * th.scores.InputNorm(), budget=budgets.OWL(), density=0.5
    )
    record = th.prune(Blocks(blocks), recipe, [torch.randn(64, 64)], progress=False)
    densities = [layer.density for layer in record.layers]
    assert densities[2] > densities[0] + 0.1
    assert densities[0] == pytest.approx(densities[1], abs=0.01)
