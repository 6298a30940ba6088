"""What a folder's model gives, unit by unit from disk, is what the whole model gives."""

from __future__ import annotations

import pytest
import torch
from model_folders import save_folder, tiny_llama
from torch import nn
from transformers import AutoModelForCausalLM

import thresher as th
from thresher.run.evaluate import compare, perplexity
from thresher.stream.outputs import folder_logits, outputs
from thresher.stream.precision import Precision
from thresher.stream.source import InMemory
from thresher.stream.units import Unit


def windows(count=3):
    return torch.randint(0, 256, (count, 64), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("outputs")
    model = tiny_llama(layers=3, hidden=64, dtype=torch.float32, tie_word_embeddings=False)
    dense = save_folder(model, place / "dense")
    th.prune(model, "magnitude", density=0.5, progress=False)
    th.save(model, place / "sparse")
    return dense, place / "sparse"


def test_the_logits_are_those_of_the_whole_model(folders):
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        found = list(folder_logits(folder, windows()))
        with torch.no_grad():
            wanted = [model(input_ids=window[None]).logits[0, :-1] for window in windows()]
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_two_models_are_compared_without_either_in_memory(folders):
    dense, sparse = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in folders)
    wanted = compare(dense, sparse, windows())
    graded = torch.is_grad_enabled()
    found = compare(*(folder_logits(folder, windows()) for folder in folders), windows())
    assert found == wanted
    assert perplexity(folder_logits(folders[1], windows()), windows()) == wanted.pruned_perplexity
    assert torch.is_grad_enabled() == graded


def test_precision_and_dtype(folders):
    exact = torch.cat(list(folder_logits(folders[0], windows())))
    rounded = torch.cat(list(folder_logits(folders[0], windows(), precision=torch.bfloat16)))
    stored = torch.cat(
        list(folder_logits(folders[0], windows(), torch.bfloat16, precision=torch.float32))
    )
    for other in (rounded, stored):
        error = float((other.float() - exact).norm() / exact.norm())
        assert 0 < error < 0.02
    assert stored.dtype == torch.float32


class Choosy(nn.Module):
    """Runs its blocks in an order that its input chooses, one of them twice."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        for i in (0, 1, 0, 2) if x.sum() > 0 else (2, 1):
            x = self.blocks[i](x).tanh()
        return x


def test_samples_that_take_different_ways():
    model = Choosy().eval()
    samples = [torch.ones(1, 4), -torch.ones(1, 4), torch.ones(1, 4) * 2]
    units = [Unit(f"blocks.{i}", block, ()) for i, block in enumerate(model.blocks)]
    found = dict(outputs(InMemory(model), units, samples, Precision()))
    assert len(found) == 3
    for index, sample in enumerate(samples):
        assert torch.equal(found[index], model(sample))
    assert "forward" not in vars(model.blocks[0])


def test_stopping_early_leaves_the_model_as_it_was():
    model = Choosy().train()
    units = [Unit(f"blocks.{i}", block, ()) for i, block in enumerate(model.blocks)]
    found = outputs(InMemory(model), units, [torch.ones(1, 4)] * 3, Precision())
    next(found)
    assert not model.training
    found.close()
    assert model.training
    assert "forward" not in vars(model.blocks[0])
