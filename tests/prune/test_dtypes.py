"""Every layer is stored in its own dtype, and what only stays is what it was."""

import pytest
import torch
from model_folders import tiny_llama
from safetensors.torch import load_file, save_file
from torch import nn

import thresher as th
from thresher.prune.disk import DiskOptions, prune_folder
from thresher.prune.memory import as_recipe
from thresher.run.files.checkpoint import Checkpoint


class Mixed(nn.Module):
    def __init__(self, first):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(32, 32).to(first), nn.Linear(32, 32)

    def forward(self, x):
        return self.b(self.a(x.to(self.a.weight.dtype)).to(self.b.weight.dtype))


@pytest.mark.parametrize("first", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_a_longer_layer_is_not_rounded_to_the_first_ones_dtype(first, method):
    model = Mixed(first)
    with torch.no_grad():
        model.b.weight[0, 0] = 1e5
    before = [model.a.weight.detach().clone(), model.b.weight.detach().clone()]
    th.prune(model, method, [torch.randn(64, 32)], density=0.5, progress=False)
    for dense, pruned in zip(before, (model.a.weight, model.b.weight), strict=True):
        assert pruned.dtype == dense.dtype
        kept = pruned != 0
        assert torch.equal(pruned[kept], dense[kept])


@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d])
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_what_only_stays_keeps_all_digits_of_float64(kind, method):
    layer = kind(8, 8) if kind is nn.Linear else kind(8, 8, 3)
    model = nn.Sequential(layer).double()
    shape = (64, 8) if kind is nn.Linear else (4, 8, 5, 5)
    nn.init.normal_(layer.weight)
    dense = layer.weight.detach().clone()
    x = torch.randn(shape).double()
    th.prune(model, method, [x], density=0.5, progress=False)
    kept = layer.weight != 0
    assert int(kept.sum()) == dense.numel() // 2
    assert torch.equal(layer.weight[kept], dense[kept])


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_longer_tensors_of_a_folder_stay_longer(tmp_path, method):
    tiny_llama(layers=2).save_pretrained(tmp_path / "dense")
    file = tmp_path / "dense/model.safetensors"
    dense = {
        # A copy: early versions of safetensors map the file that is about to be written.
        name: tensor.bfloat16() if "layers.0." in name else tensor.float().clone()
        for name, tensor in load_file(file).items()
    }
    save_file(dense, file, metadata={"format": "pt"})
    recipe = as_recipe(method).with_options(0.5)
    windows = torch.randint(0, 256, (2, 16)) if method == "wanda" else None
    out = tmp_path / "sparse"
    prune_folder(tmp_path / "dense", out, recipe, windows, DiskOptions(progress=False))
    for name in ("model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"):
        pruned = Checkpoint(out).tensor(name)
        kept = pruned != 0
        assert pruned.dtype == dense[name].dtype
        assert torch.equal(pruned[kept], dense[name][kept])
