"""A layer with a forward of its own is pruned alike in memory and from disk."""

import copy

import pytest
import torch
from model_folders import tiny_llama
from torch import nn

import thresher as th
from thresher.parts.coverage import find_layers
from thresher.parts.moments import Norm
from thresher.prune.disk import DiskOptions, prune_folder
from thresher.prune.memory import as_recipe
from thresher.run.files.checkpoint import Checkpoint


def tripled(self, x):
    return nn.functional.linear(x * torch.linspace(1, 3, x.shape[-1]), self.weight, self.bias)


@pytest.fixture
def own_forward(monkeypatch):
    """Have the feed-forward layers of llamas be of a class with a forward of its own."""
    from transformers.models.llama import modeling_llama

    class Own(nn.Linear):
        forward = tripled

    class Mlp(modeling_llama.LlamaMLP):
        def __init__(self, config):
            super().__init__(config)
            self.down_proj.__class__ = Own

    monkeypatch.setattr(modeling_llama, "LlamaMLP", Mlp)


def test_a_layer_with_its_own_forward_is_pruned_from_disk(tmp_path, own_forward):
    model = tiny_llama(layers=2).eval()
    model.save_pretrained(tmp_path / "dense")
    windows = torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(0))
    assert [layer.by_products for layer in find_layers(model)].count(True) == 2
    dense = copy.deepcopy(model)
    th.prune(model, "wanda", windows, density=0.5, progress=False)
    recipe = as_recipe("wanda").with_options(0.5)
    prune_folder(tmp_path / "dense", tmp_path / "out", recipe, windows, DiskOptions(progress=False))
    name = "model.layers.0.mlp.down_proj.weight"
    pruned = model.get_parameter(name)
    assert torch.equal(Checkpoint(tmp_path / "out").tensor(name), pruned)
    assert not torch.equal(pruned, dense.get_parameter(name))


def test_without_data_it_is_pruned_too(own_forward):
    record = th.prune(tiny_llama(layers=1), "magnitude", density=0.5, progress=False)
    assert record.coverage["not_understood"] == {}
    assert Norm not in as_recipe("magnitude").needs
