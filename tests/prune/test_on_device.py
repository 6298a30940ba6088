"""Pruning and evaluating on a CUDA device, held against the CPU."""

from __future__ import annotations

import pytest
import torch
from model_folders import save_folder, tiny_llama

import thresher as th
from thresher.prune.disk import DiskOptions, prune_folder
from thresher.prune.memory import as_recipe
from thresher.run.files.checkpoint import Checkpoint
from thresher.stream.outputs import folder_logits

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def windows():
    return torch.randint(0, 256, (4, 64), generator=torch.Generator().manual_seed(0))


def supports(folder):
    checkpoint = Checkpoint(folder)
    return {n: checkpoint.tensor(n) != 0 for n in checkpoint if checkpoint.is_packed(n)}


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "lamp"])
def test_masks_are_those_of_the_cpu(method, tmp_path):
    source = save_folder(tiny_llama(layers=2), tmp_path / "model")
    recipe = as_recipe(method).with_options(0.5)
    found = {}
    for device in ("cpu", "cuda"):
        options = DiskOptions(device=device, precision=torch.float32)
        prune_folder(source, tmp_path / device, recipe, windows(), options)
        found[device] = supports(tmp_path / device)
    for name, mask in found["cpu"].items():
        assert float((mask == found["cuda"][name]).float().mean()) > 0.99, name
    logits = [
        torch.cat([each[:] for each in folder_logits(source, windows(), device=d)]).cpu()
        for d in found
    ]
    torch.testing.assert_close(*logits, atol=1e-3, rtol=1e-3)


def test_a_model_in_memory_comes_back_to_where_it_was():
    models = [tiny_llama(layers=2), tiny_llama(layers=2)]
    for model, device in zip(models, ("cpu", "cuda"), strict=True):
        th.prune(model, "wanda", windows(), density=0.5, device=device, progress=False)
        assert {p.device.type for p in model.parameters()} == {"cpu"}
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        assert float(((a != 0) == (b != 0)).float().mean()) > 0.99
