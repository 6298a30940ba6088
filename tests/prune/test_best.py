"""Moments of `best`, held against plain passes of the dense and the finished model."""

from __future__ import annotations

import copy
import dataclasses
import warnings

import pytest
import torch
from model_folders import save_folder, tiny_llama
from small_models import bert, gpt2
from torch import nn
from torch.nn import functional

import thresher as th
from thresher.core.output import writing
from thresher.parts import updates
from thresher.parts.moments import Cross, Gram, HeldOut
from thresher.parts.tokens import ByAttention, EqualTokens
from thresher.prune.best import Best
from thresher.prune.disk import DiskOptions, DiskRun, prune_folder
from thresher.stream import collect
from thresher.stream.current import running
from thresher.stream.state import RunState


@dataclasses.dataclass(frozen=True)
class Noting(updates.DenseTarget):
    """Keeps the moments that every layer was pruned with."""

    noted: dict = dataclasses.field(default_factory=dict, compare=False, repr=False)
    name = None

    def __call__(self, weight, choose, statistics):
        assert statistics.saw_every_token(Cross)
        held = statistics[HeldOut]
        found = statistics[Gram].value, statistics[Cross].value, held.gram, held.cross
        self.noted[statistics.name] = tuple(each.clone() for each in found)
        return super().__call__(weight, choose, statistics)


@torch.no_grad()
def inputs_of(model, names, windows):
    """Return every layer's inputs in a plain pass, window by window, and the attentions."""
    found = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: found[name].append(args[0].detach())
        )
        for name in names
    ]
    attentions = [
        model(input_ids=w[None], output_attentions=True, use_cache=False).attentions
        for w in windows
    ]
    for handle in handles:
        handle.remove()
    return found, attentions


def check_moments(noted, dense, pruned, windows, tokens, block_of):
    dense, pruned = (copy.deepcopy(m).float() for m in (dense, pruned))
    for model in (dense, pruned):
        model.set_attn_implementation("eager")
        model.eval()
    before, attentions = inputs_of(dense, noted, windows)
    after, _ = inputs_of(pruned, noted, windows)
    for name, found in noted.items():
        rows = []
        for x, d, each in zip(after[name], before[name], attentions, strict=True):
            weights = tokens(each[block_of(name)].sum((1, 2)))[..., None]
            rows.append(((d * weights)[0], (x * weights)[0]))
        # All windows, and the fourth of the four, by which the others are judged.
        for some, (gram, cross) in ((rows, found[:2]), (rows[3:], found[2:])):
            d, x = (torch.cat(part) for part in zip(*some, strict=True))
            torch.testing.assert_close(gram, x.T @ x / len(x), rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(cross, d.T @ x / len(x), rtol=1e-3, atol=1e-4)


def windows(vocabulary=256, count=4, length=24):
    return torch.randint(vocabulary, (count, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tokens", [ByAttention(), EqualTokens()], ids=repr)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_every_layer_is_pruned_with_the_inputs_of_both_models(tokens, implementation):
    """What comes to a layer in the finished model is what it was calibrated on."""
    dense = tiny_llama(layers=3).eval()
    dense.set_attn_implementation(implementation)
    pruned = copy.deepcopy(dense)
    update = Noting(updates.ADMM())
    recipe = Best(update=update, tokens=tokens, density=0.5)
    th.prune(pruned, recipe, windows(), progress=False)
    assert len(update.noted) == 21
    check_moments(update.noted, dense, pruned, windows(), tokens, lambda n: int(n.split(".")[2]))


@pytest.mark.parametrize("spill", [True, False])
def test_from_disk_they_are_the_same_also_after_an_interruption(tmp_path, monkeypatch, spill):
    dense = tiny_llama(layers=3).eval()
    source = save_folder(dense, tmp_path / "model")
    update = Noting(updates.ADMM())
    recipe = Best(update=update, density=0.5)
    options = DiskOptions(spill=spill, progress=False)
    prune_folder(source, tmp_path / "whole", recipe, windows(), options)
    pruned = load(tmp_path / "whole")
    names = dict(update.noted)
    check_moments(names, dense, pruned, windows(), recipe.tokens, lambda n: int(n.split(".")[2]))

    saved = RunState.save

    def stopped(state, folder):
        saved(state, folder)
        if state.next == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            prune_folder(source, tmp_path / "out", recipe, windows(), options)
    run = DiskRun(source, tmp_path / "out", recipe, windows(), options, {})
    with writing(tmp_path / "out", "prune", keep=True) as output:
        run.execute(output)
    shards = sorted(file.name for file in (tmp_path / "whole").glob("*.safetensors"))
    assert shards
    for name in shards:
        one, other = ((tmp_path / out / name).read_bytes() for out in ("whole", "out"))
        assert one == other


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_the_same_samples_are_held_out_in_any_number_of_processes(processes, monkeypatch):
    monkeypatch.setattr(collect, "ranks", lambda: processes)
    held = []
    for rank in range(processes):
        monkeypatch.setattr(collect, "rank", lambda rank=rank: rank)
        for index, sample in enumerate(range(12)[rank::processes]):
            with running(None, index):
                held += [sample] * collect._is_held_out()
    assert sorted(held) == [3, 7, 11]


def load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def test_in_memory_and_from_disk_the_weights_are_the_same(tmp_path):
    dense = tiny_llama(layers=2).eval()
    source = save_folder(dense, tmp_path / "model")
    prune_folder(
        source, tmp_path / "out", Best(density=0.5), windows(), DiskOptions(progress=False)
    )
    th.prune(dense, "best", windows(), density=0.5, progress=False)
    for name, value in load(tmp_path / "out").state_dict().items():
        torch.testing.assert_close(value, dense.state_dict()[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [gpt2, bert])
def test_other_architectures(make):
    model = make()
    data = [{"input_ids": w[None]} for w in windows(60, length=16)]
    record = th.prune(model, "best", data, density=0.5, progress=False)
    assert record.density == pytest.approx(0.5, abs=0.01)


class Repeating(nn.Module):
    """Calls its one block twice, so that no dense path can run beside it."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(8, 8)])

    def forward(self, x):
        return self.blocks[0](torch.relu(self.blocks[0](x)))


def test_without_a_dense_path_it_says_so_and_prunes():
    torch.manual_seed(0)
    model, data = Repeating(), [torch.randn(2, 5, 8) for _ in range(4)]
    with pytest.warns(UserWarning, match="no dense path runs beside"):
        record = th.prune(model, "best", data, density=0.5, progress=False)
    assert record.density == 0.5


class Late(nn.Module):
    """A block whose attention comes after its first two layers."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.out = nn.Linear(8, 8)

    def forward(self, x):
        x = x + self.down(torch.relu(self.up(x)))
        heads = x[:, None]
        return x + self.out(functional.scaled_dot_product_attention(heads, heads, heads)[:, 0])


def test_attention_is_seen_wherever_it_is_in_a_block(monkeypatch):
    torch.manual_seed(0)
    model, data = nn.Sequential(Late(), Late()), [torch.randn(1, 6, 8) for _ in range(4)]
    given = []
    weigh = ByAttention.__call__
    monkeypatch.setattr(ByAttention, "__call__", lambda s, r: given.append(r) or weigh(s, r))
    th.prune(model, "best", data, density=0.5, progress=False)
    assert [tuple(received.shape) for received in given] == [(1, 6)] * 8


def test_outputs_come_nearer_to_the_dense_ones_than_sparsegpts():
    errors = {"sparsegpt": [], "best": []}
    for seed in range(3):
        dense = tiny_llama(layers=3, hidden=64, seed=seed).eval()
        held_out = torch.randint(256, (4, 64), generator=torch.Generator().manual_seed(9))
        for method, found in errors.items():
            model = copy.deepcopy(dense)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                th.prune(model, method, windows(count=16, length=64), density=0.5, progress=False)
            with torch.no_grad():
                change = model(input_ids=held_out).logits - dense(input_ids=held_out).logits
            found.append(float(change.square().mean()))
    ratios = [a / b for a, b in zip(errors["best"], errors["sparsegpt"], strict=True)]
    assert max(ratios) < 0.9


def test_a_strength_is_chosen_by_layer_in_stages_alone():
    """Layers that are not pruned in turn would each make up for all of the same difference."""
    given = (tiny_llama(layers=3).eval(), windows())
    weights = {}
    for stages in (True, False):
        for strength in (None, 0.5):
            model = copy.deepcopy(given[0])
            update = updates.DenseTarget(updates.OBS(), strength=strength)
            recipe = Best(update=update, density=0.5, stages=stages)
            th.prune(model, recipe, given[1], progress=False)
            weights[stages, strength] = torch.cat([p.flatten() for p in model.parameters()])
    assert torch.equal(weights[False, None], weights[False, 0.5])
    assert not torch.equal(weights[True, None], weights[True, 0.5])
