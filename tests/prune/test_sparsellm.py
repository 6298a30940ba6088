"""SparseLLM: every step lowers the sum, and networks come nearer to what they were."""

import warnings

import pytest
import torch
from small_models import llama, tokens
from torch import nn
from torch.nn import functional

import thresher as th
from thresher.core.errors import OptionError
from thresher.parts.coverage import find_layers
from thresher.prune.cuts import Cut
from thresher.prune.layerwise import UnitPruner
from thresher.prune.sparsellm import SparseLLM, _Search, _through, _through_relu
from thresher.stream.source import InMemory
from thresher.stream.stream import Stream
from thresher.stream.units import find_units


class Block(nn.Module):
    def __init__(self, activation, gated):
        super().__init__()
        self.gate = nn.Linear(12, 32) if gated else None
        self.up, self.down = nn.Linear(12, 32), nn.Linear(32, 12)
        self.activation = activation

    def forward(self, x):
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Chain(nn.Module):
    def __init__(self, activation=functional.relu, gated=False, depth=2):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block(activation, gated) for _ in range(depth))

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


def data(count=8):
    mixing = torch.randn(12, 12, generator=torch.Generator().manual_seed(1))
    return [
        torch.randn(1, 64, 12, generator=torch.Generator().manual_seed(seed)) @ mixing
        for seed in range(count)
    ]


KINDS = pytest.mark.parametrize(
    ("activation", "gated"),
    [
        (functional.relu, False),
        (functional.gelu, False),
        (functional.silu, True),
        (functional.relu, True),
    ],
    ids=["relu", "gelu", "silu-gated", "relu-gated"],
)


def searches(monkeypatch, model, density=0.3, **options):
    """Return the searches of a run, as they are before the first sweep."""
    found = []

    def keep(self, sweeps):
        found.append(self)
        return list(self.pruned)

    monkeypatch.setattr(_Search, "best", keep)
    th.prune(model, SparseLLM(**options), data(), density=density, progress=False)
    return found


@KINDS
def test_no_step_raises_the_sum(monkeypatch, activation, gated):
    for search in searches(monkeypatch, Chain(activation, gated)):
        before = search.objective()
        for _ in range(4):
            for step in ("move_hidden", "move_made", "prune_readers", "prune_last"):
                getattr(search, step)()
                after = search.objective()
                assert after <= before * (1 + 1e-6), step
                before = after


def test_what_goes_into_the_last_layer_is_the_minimum(monkeypatch):
    search = searches(monkeypatch, Chain())[0]
    search.move_hidden()
    least = search.objective()
    torch.manual_seed(0)
    for _ in range(10):
        kept = search.hidden
        search.hidden = kept + 0.01 * torch.randn_like(kept)
        assert search.objective() > least
        search.hidden = kept


def problem(count=400):
    generator = torch.Generator().manual_seed(0)
    given, out, scale = (
        torch.randn(count, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    return 2 * given, 2 * out, scale


def costs(v, activation, given, out, scale):
    return (v - given).square() + (out - scale * activation(v)).square()


def by_grid(activation, given, out, scale):
    grid = torch.linspace(-12, 12, 24001, dtype=torch.float64).unsqueeze(1)
    return costs(grid, activation, given, out, scale).min(0).values


def test_values_before_a_relu_are_the_best_there_are():
    given, out, scale = problem()
    found = _through_relu(functional.relu, given, given, out, scale)
    reached = costs(found, functional.relu, given, out, scale)
    torch.testing.assert_close(
        reached, by_grid(functional.relu, given, out, scale), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("activation", [functional.silu, functional.gelu, torch.sigmoid])
def test_values_before_others_are_never_worse_and_mostly_the_best(activation):
    given, out, scale = problem()
    now = given.roll(1)
    found = _through(activation, now, given, out, scale)
    reached = costs(found, activation, given, out, scale)
    assert bool((reached <= costs(now, activation, given, out, scale)).all())
    assert bool((reached <= costs(given, activation, given, out, scale)).all())
    excess = reached - by_grid(activation, given, out, scale)
    assert float((excess < 0.02).double().mean()) > 0.85


def network_error(dense, pruned):
    """Return the squared error of the first block, which both are given alike."""
    rows = torch.cat(data())
    with torch.no_grad():
        expected, given = dense.blocks[0](rows), pruned.blocks[0](rows)
    return float((given - expected).square().sum() / expected.square().sum())


@KINDS
def test_networks_come_nearer_than_by_sparsegpt(activation, gated):
    errors = {}
    for method in ("sparsegpt", "sparsellm"):
        model = Chain(activation, gated)
        th.prune(model, method, data(), density=0.3, progress=False)
        errors[method] = network_error(Chain(activation, gated), model)
    assert errors["sparsellm"] < 0.95 * errors["sparsegpt"]


def test_without_a_gain_it_is_sparsegpt(monkeypatch):
    monkeypatch.setattr(_Search, "error", lambda self: 1.0)
    found = []
    for method in ("sparsegpt", "sparsellm"):
        model = llama()
        th.prune(model, method, tokens(), density=0.4, progress=False)
        found.append(model.state_dict())
    for name, weight in found[0].items():
        assert torch.equal(weight, found[1][name]), name


def test_more_sweeps_are_never_worse():
    errors = []
    for sweeps in (1, 3, 6):
        model = Chain()
        th.prune(model, SparseLLM(sweeps=sweeps), data(), density=0.3, progress=False)
        errors.append(network_error(Chain(), model))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_blocks_without_a_network_are_pruned_with_a_warning():
    model, other = Chain(functional.hardswish), Chain(functional.hardswish)
    with pytest.warns(UserWarning, match="no feed-forward network is recognised"):
        th.prune(model, "sparsellm", data(), density=0.3, progress=False)
    th.prune(other, "sparsegpt", data(), density=0.3, progress=False)
    for (name, weight), (_, expected) in zip(
        model.named_parameters(), other.named_parameters(), strict=True
    ):
        assert torch.equal(weight, expected), name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        th.prune(llama(), "sparsellm", tokens(), density=0.5, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": True}, "stages is not for 'sparsellm'"),
        ({"tokens": "attention"}, "tokens is not for 'sparsellm'"),
    ],
)
def test_what_it_cannot_do_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        SparseLLM().with_options(**options)


def test_sweeps_are_counted():
    with pytest.raises(OptionError, match="sweeps"):
        SparseLLM(sweeps=0)


def test_other_densities_of_one_run_are_pruned_together_too():
    model, expected = Chain(), Chain()
    layers = find_layers(model)
    recipe = SparseLLM(density=0.6)
    stream = Stream(InMemory(model), find_units(model, layers), data())
    pruner = UnitPruner(stream, layers, recipe)
    counts, other = pruner.counts([0.6, 0.3])
    cut = Cut(other)
    visit = next(visits := stream.visits())
    pruner.prune(visit, counts, [cut])
    visits.close()
    th.prune(expected, "sparsellm", data(), density=0.3, progress=False)
    for name, weight in cut.weights.items():
        assert torch.equal(weight, expected.get_submodule(name).weight), name
