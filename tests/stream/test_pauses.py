"""Samples that wait inside a block, before the layers that are pruned next."""

import threading
from collections import Counter
from contextlib import closing

import pytest
import torch
from small_models import llama, tokens
from torch import nn
from torch.overrides import BaseTorchFunctionMode

import thresher as th
from thresher.core.errors import DataError
from thresher.parts.coverage import find_layers
from thresher.parts.moments import Gram
from thresher.prune.best import Best
from thresher.stream.calls import watching_calls
from thresher.stream.collect import collect_inputs
from thresher.stream.source import InMemory
from thresher.stream.stages import find_stages
from thresher.stream.stream import Stream
from thresher.stream.units import find_units


def visits_of(model, samples, **options):
    return closing(
        Stream(InMemory(model), find_units(model, find_layers(model)), samples, **options).visits()
    )


class Block(nn.Module):
    """Two layers, what lies between them, and a sum with what the block is given."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def between(self, x):
        return torch.relu(self.first(x))

    def forward(self, x):
        return x + self.second(self.between(x))


class Keeping(Block):
    """Finds on itself what it has put there, which another sample may have written over."""

    def forward(self, x):
        self.given = x
        return self.given + self.second(self.between(x)) + self.given


class Locked(Block):
    def __init__(self):
        super().__init__()
        self.lock = [threading.Lock()]

    def forward(self, x):
        (lock,) = self.lock
        with lock:
            return super().forward(x)


class Watched(Block):
    def between(self, x):
        with BaseTorchFunctionMode():
            return super().between(x)


class Lent(Block):
    """Calls its layer with another weight in the place of its own."""

    def between(self, x):
        weight = {"weight": self.first.weight * 2}
        return torch.relu(torch.func.functional_call(self.first, weight, (x,)))


class InPlace(Block):
    """Changes what it is given."""

    def forward(self, x):
        return super().forward(x.add_(1))


class Pair(nn.Module):
    """Two layers that are given the same tensor, or a copy of it where a sample is large."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        other = x.clone() if x.abs().max() > 50 else x
        return self.out(torch.relu(self.left(x)) * self.right(other))


class Skipping(Block):
    """Leaves its second layer out where a sample is large."""

    def forward(self, x):
        return x + self.between(x) if x.abs().max() > 50 else super().forward(x)


class Repeating(Block):
    """Calls its first layer again where a sample is large."""

    def between(self, x):
        found = super().between(x)
        return super().between(x) if x.abs().max() > 50 else found


def blocks(kind):
    torch.manual_seed(0)
    return nn.Sequential(kind(), kind())


def samples(count=3):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 5, 8, generator=generator) for _ in range(count)]


def moments(model, data, paused):
    """Return the moments of every layer, collected stage by stage without pruning."""
    found = {}
    with visits_of(model, data) as visits:
        for visit in visits:
            stages = find_stages(visit)
            if len(stages) > 1:
                assert not paused or visit.pause_at(stages)
            for stage in stages:
                calls = visit.calls(stage) if paused and len(stages) > 1 else None
                found |= collect_inputs(model, stage, {Gram}, visit.run, calls=calls)
    return {name: each[Gram].value for name, each in found.items()}


def test_samples_that_wait_show_what_passes_from_the_start_show():
    model, data = llama(), [{"input_ids": row[None]} for row in tokens()]
    apart, paused = (moments(model, data, waits) for waits in (False, True))
    assert len(paused) >= 21
    assert apart.keys() == paused.keys()
    assert all(torch.equal(apart[name], paused[name]) for name in apart)


def test_no_part_of_a_block_is_computed_twice():
    model, data = blocks(Block), samples()
    with visits_of(model, data) as visits:
        visit = next(visits)
        stages = find_stages(visit)
        assert visit.pause_at(stages)
        called = Counter()
        with watching_calls(visit.unit.layers, lambda layer, *_: called.update([layer.name])):
            for stage in stages:
                assert len(list(visit.calls(stage))) == len(data)
            next(visits)
    assert called == {"0.first": 3, "0.second": 3}


@pytest.mark.parametrize("kind", [Keeping, Locked, Watched, Lent])
def test_a_block_that_cannot_be_left_in_its_middle_is_run_from_its_start(kind):
    with visits_of(blocks(kind), samples()) as visits:
        visit = next(visits)
        stages = find_stages(visit)
        assert len(stages) == 2
        assert not visit.pause_at(stages)
        visit.run()


def test_what_a_block_keeps_is_no_matter_where_there_is_one_sample():
    with visits_of(blocks(Keeping), samples(1)) as visits:
        visit = next(visits)
        assert visit.pause_at(find_stages(visit))


def test_a_trial_leaves_what_a_block_is_given_as_it_is():
    model, data = blocks(InPlace), samples()
    apart, paused = (moments(model, [x.clone() for x in data], waits) for waits in (False, True))
    assert all(torch.equal(apart[name], paused[name]) for name in apart)


def test_nothing_waits_inside_where_memory_is_short(monkeypatch):
    # Both layers of a block are given 5 tokens of 8 numbers, for three samples.
    most = 4 * 3 * 2 * (5 * 8 * 4)
    for free, waits in ((most, True), (most - 1, False)):
        monkeypatch.setattr("thresher.stream.stream.free_memory", lambda device, free=free: free)
        with visits_of(blocks(Block), samples()) as visits:
            visit = next(visits)
            assert visit.pause_at(find_stages(visit)) == waits


def test_states_on_disk_stay_there(tmp_path):
    with visits_of(blocks(Block), samples(), spill=tmp_path / "states") as visits:
        visit = next(visits)
        assert not visit.pause_at(find_stages(visit))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Pair, "'0.right' is not given what '0.left' is"),
        (Skipping, "sample 2 of 3 does not come to layer '0.second'"),
        (Repeating, "'0.first' is called again"),
    ],
)
def test_a_sample_that_calls_otherwise_than_the_first_ones_is_refused(kind, said):
    model, data = blocks(kind), samples()
    data[1][0, 0, 0] = 100.0
    recipe = Best(density=0.5).with_options(tokens="equal")
    with pytest.raises(DataError, match=said):
        th.prune(model, recipe, data, progress=False)


def test_no_pass_begins_once_samples_wait_inside():
    with visits_of(blocks(Block), samples()) as visits:
        visit = next(visits)
        stages = find_stages(visit)
        assert visit.pause_at(stages)
        list(visit.calls(stages[0]))
        with pytest.raises(RuntimeError, match="'0' is left in its middle"):
            visit.run()
