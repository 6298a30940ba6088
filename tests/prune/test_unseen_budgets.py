"""A budget ranks the layers that the data reaches, and no others beside them."""

import pytest
import torch
from torch import nn

import thresher as th
from thresher.parts import budgets
from thresher.parts.compressibility import PQIndex


class Partly(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.unused = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("budget", [budgets.Global(), budgets.LAMP(), budgets.OWL(), PQIndex()])
def test_a_layer_without_data_keeps_the_density_that_is_asked_for(budget, scale):
    torch.manual_seed(0)
    recipe = th.Recipe(
        score=th.scores.Magnitude() * th.scores.InputNorm(), budget=budget, density=0.5
    )
    record = th.prune(Partly(), recipe, [scale * torch.randn(64, 32)], progress=False)
    densities = {layer.name: layer.density for layer in record.layers}
    assert record.unseen == ["unused"]
    assert densities["unused"] == pytest.approx(0.5, abs=0.01)
    assert record.density == pytest.approx(0.5, abs=0.001)


def test_what_the_others_keep_does_not_depend_on_it():
    torch.manual_seed(0)
    recipe = th.Recipe(
        score=th.scores.Magnitude() * th.scores.InputNorm(), budget=budgets.Global(), density=0.5
    )
    model, alone, x = Partly(), Partly(), [torch.randn(64, 32)]
    alone.load_state_dict(model.state_dict())
    th.prune(model, recipe, x, progress=False)
    th.prune(alone, recipe, x, exclude=["unused"], progress=False)
    assert torch.equal(model.a.weight, alone.a.weight)
