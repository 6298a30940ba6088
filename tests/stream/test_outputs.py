"""What a folder's model gives, unit by unit from disk, is what the whole model gives."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from model_folders import save_folder, tiny_llama
from torch import nn
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config

import thresher as th
from thresher.run.evaluate import compare, perplexity
from thresher.stream.outputs import folder_logits, outputs
from thresher.stream.precision import Precision
from thresher.stream.source import InMemory
from thresher.stream.units import Unit

SMALL = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
GEMMA2 = Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=5.0)
COHERE = CohereConfig(**SMALL, logit_scale=0.25)


def windows(count=3):
    return torch.randint(0, 256, (count, 64), generator=torch.Generator().manual_seed(0))


def whole(logits):
    return torch.stack([each[:] for each in logits])


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
        found = whole(folder_logits(folder, windows()))
        with torch.no_grad():
            wanted = torch.stack([model(window[None]).logits[0, :-1] for window in windows()])
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_two_models_are_compared_without_either_in_memory(folders):
    dense, sparse = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in folders)
    wanted = compare(dense, sparse, windows())
    graded = torch.is_grad_enabled()
    found = compare(*(folder_logits(folder, windows()) for folder in folders), windows())
    for name, value in asdict(wanted).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-5, abs=1e-7), name
    alone = perplexity(folder_logits(folders[1], windows()), windows())
    assert alone == pytest.approx(wanted.pruned_perplexity, rel=1e-5)
    assert torch.is_grad_enabled() == graded


def test_precision_and_dtype(folders):
    exact = whole(folder_logits(folders[0], windows()))
    rounded = whole(folder_logits(folders[0], windows(), precision=torch.bfloat16))
    stored = whole(folder_logits(folders[0], windows(), torch.bfloat16, precision=torch.float32))
    for other in (rounded, stored):
        error = float((other.float() - exact).norm() / exact.norm())
        assert 0 < error < 0.02
    assert stored.dtype == torch.float32


def seen_by_the_head(folder, monkeypatch):
    """Return how many positions the head is called on at a time while a folder is evaluated."""
    seen, called = [], nn.Linear.forward

    def forward(self, x):
        seen.extend([x.shape[-2]] if self.out_features == 256 else [])
        return called(self, x)

    monkeypatch.setattr(nn.Linear, "forward", forward)
    value = perplexity(folder_logits(folder, windows()), windows())
    monkeypatch.undo()
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert value == pytest.approx(perplexity(model, windows()), rel=1e-5)
    return seen


def test_the_head_runs_in_slices(folders, monkeypatch):
    seen = seen_by_the_head(folders[0], monkeypatch)
    # The last position of the probe and of every window, by the model and by hand; then 63
    # positions by half of the width of 64.
    assert seen == [1, 1, *[1, 1, 32, 31] * 3]


@pytest.mark.parametrize("config", [GEMMA2, COHERE], ids=["capped", "scaled"])
def test_logits_that_are_not_the_heads_alone_are_made_whole(config, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.get_output_embeddings().weight *= 50  # so that the cap is felt
    model.save_pretrained(tmp_path)
    assert seen_by_the_head(tmp_path, monkeypatch) == [1, 1, 64, 64, 64]


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
