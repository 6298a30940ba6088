"""The groups in which the layers of a block are pruned one after another."""

from contextlib import closing

import pytest
import torch
from model_folders import tiny_llama
from torch import nn

from thresher.parts.coverage import find_layers
from thresher.parts.moments import Gram
from thresher.stream.collect import Stage, collect_inputs
from thresher.stream.source import InMemory
from thresher.stream.stages import find_stages
from thresher.stream.stream import Stream
from thresher.stream.units import find_units


def stages_of(model, samples):
    """Return the names of every stage's layers and of those that end it, in the first unit."""
    layers = find_layers(model)
    stream = Stream(InMemory(model), find_units(model, layers), samples)
    with closing(stream.visits()) as visits:
        stages = find_stages(next(visits))
    return [
        tuple([layer.name.split(".", 1)[1] for layer in group] for group in (s.layers, s.later))
        for s in stages
    ]


class Mixture(nn.Module):
    """One block: experts of two layers each, every one called for some of the tokens."""

    def __init__(self):
        super().__init__()
        pairs = [{"up": nn.Linear(8, 8), "down": nn.Linear(8, 8)} for _ in range(3)]
        self.experts = nn.ModuleList(map(nn.ModuleDict, pairs))
        self.out = nn.Linear(8, 8)

    def forward(self, x):
        total = x
        for index, expert in enumerate(self.experts):
            rows = x[..., index::3, :]
            found = expert["down"](torch.relu(expert["up"](rows)))
            total = total + found.sum(-2, keepdim=True)
        return self.out(total)


class Twice(nn.Module):
    """One block that calls its first layer again after its second one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.first(torch.relu(self.second(self.first(x))))


def blocks(kind):
    torch.manual_seed(0)
    return nn.Sequential(kind(), kind())


def test_a_llama_block_has_four():
    model = tiny_llama(layers=2).eval()
    samples = [{"input_ids": torch.arange(8)[None]}]
    attention = [f"layers.0.self_attn.{x}_proj" for x in "qkvo"]
    mlp = [f"layers.0.mlp.{x}_proj" for x in ("gate", "up", "down")]
    assert stages_of(model, samples) == [
        (attention[:3], [attention[3], *mlp]),
        (attention[3:], mlp),
        (mlp[:2], mlp[2:]),
        (mlp[2:], []),
    ]


def test_experts_go_together_and_no_pass_ends_before_the_last_of_them():
    found = stages_of(blocks(Mixture), [torch.randn(1, 6, 8)])
    assert [stage for stage, _ in found] == [
        [f"experts.{i}.up" for i in range(3)],
        [f"experts.{i}.down" for i in range(3)],
        ["out"],
    ]
    # An expert's second layer runs before the first one of the next.
    assert [later for _, later in found] == [[], ["out"], []]


class Numbered(nn.Module):
    """One block of two layers whose names differ in a number, as in OPT, BART and ViT."""

    def __init__(self, names=("fc1", "fc2")):
        super().__init__()
        self.first, self.second = names
        self.add_module(self.first, nn.Linear(8, 16))
        self.add_module(self.second, nn.Linear(16, 8))

    def forward(self, x):
        first, second = self.get_submodule(self.first), self.get_submodule(self.second)
        return x + second(torch.relu(first(x)))


@pytest.mark.parametrize("names", [("fc1", "fc2"), ("0", "2")])
def test_layers_that_a_block_numbers_run_one_after_another(names):
    found = stages_of(blocks(lambda: Numbered(names)), [torch.randn(1, 6, 8)])
    assert [stage for stage, _ in found] == [[name] for name in names]


def test_a_layer_that_is_called_again_is_seen_whole():
    found = stages_of(blocks(Twice), [torch.randn(1, 6, 8)])
    assert found == [(["first"], []), (["second"], [])]


def test_a_unit_of_one_layer_is_one_stage():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    layers = find_layers(model)
    stream = Stream(InMemory(model), find_units(model, layers), [torch.randn(1, 6, 8)])
    with closing(stream.visits()) as visits:
        (stage,) = find_stages(next(visits))
    assert stage.later == ()


class Counted(nn.Module):
    """One block of three layers, which counts how often each is called."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))
        self.calls = [0, 0, 0]

    def forward(self, x):
        for index, layer in enumerate((self.first, self.second, self.third)):
            x = layer(x)
            self.calls[index] += 1
        return x


def test_a_pass_ends_as_soon_as_every_layer_of_a_stage_was_called():
    model = nn.Sequential(Counted(), Counted())
    samples = [torch.randn(1, 6, 8) for _ in range(4)]
    layers = find_layers(model)
    stream = Stream(InMemory(model), find_units(model, layers), samples)
    with closing(stream.visits()) as visits:
        visit = next(visits)
        stage = find_stages(visit)[1]
        assert stage.once
        known = {}
        for each in (stage, Stage(stage.layers)):
            model[0].calls = [0, 0, 0]
            known[each.once] = collect_inputs(model, each, {Gram}, visit.run)
            # The layer is given its input, and not even computed.
            assert model[0].calls == ([4, 0, 0] if each.once else [4, 4, 4])
    (name,) = known[True]
    assert known[True][name].tokens == known[False][name].tokens == 24
    assert torch.equal(known[True][name][Gram].value, known[False][name][Gram].value)
