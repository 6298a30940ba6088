"""Samples that are under way together are calibrated as if each went through the model alone."""

import contextvars
import copy
import threading
import warnings

import pytest
import torch
from small_models import llama, tokens, vectors
from torch import nn

import thresher as th
from thresher.core.errors import DataError
from thresher.parts.coverage import find_layers
from thresher.stream.choice import extremes, most_different
from thresher.stream.hooks import Hooks
from thresher.stream.locks import held_lock
from thresher.stream.source import InMemory
from thresher.stream.stream import Stream
from thresher.stream.units import find_units

SCALE = torch.logspace(-1, 1, 16)


def half(model, data):
    return th.prune(model, "wanda", data, density=0.5, progress=False)


def stream_over(model, samples):
    return Stream(InMemory(model), find_units(model, find_layers(model)), samples)


def hooks_of(model):
    return [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]


def wandas_mask(layer, inputs):
    score = layer.weight.detach().abs() * torch.cat(inputs).reshape(-1, 16).norm(dim=0)
    keep = score.topk(8, dim=1).indices
    return torch.zeros_like(score, dtype=torch.bool).scatter_(1, keep, True)


def assert_pruned_as_by_plain_passes(pruned, dense, blocks, data):
    """Compare Wanda's masks, one block after another, with those that plain passes give."""
    for name in blocks:
        layer, seen = dense.get_submodule(name), []
        handle = layer.register_forward_pre_hook(
            lambda _, args, s=seen: s.append(args[0].detach().clone())
        )
        for sample in data:
            with torch.no_grad():
                th.stream.passes.call(dense, sample)
        handle.remove()
        wanted = wandas_mask(layer, seen)
        assert torch.equal(pruned.get_submodule(name).weight != 0, wanted), name
        layer.weight.data.mul_(wanted)


class Blocks(nn.Module):
    def __init__(self, count=3):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(16, 16) for _ in range(count)])

    def run(self, x, order=(0, 1, 2)):
        for index in order:
            x = torch.relu(self.blocks[index](x)) + 0.1
        return x

    def forward(self, x):
        return self.run(x)


class Conditioned(nn.Module):
    """Its blocks find on themselves what its forward pass has put there."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([Scaled() for _ in range(3)])

    def forward(self, x, c):
        for block in self.blocks:
            block.scale = c
        for block in self.blocks:
            x = block(x)
        return x


class ConditionedOnce(Conditioned):
    def __init__(self):
        super().__init__()
        self.blocks = self.blocks[:1]


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.scale = nn.Linear(16, 16), None

    def forward(self, x):
        return x + torch.relu(self.f(x * self.scale))


class Hooking(Blocks):
    """Puts hooks on its layers for the length of a pass, and takes them off at its end."""

    careful = True

    def forward(self, x, c):
        inner = [block.register_forward_pre_hook(lambda _, a: (a[0] * c,)) for block in self.blocks]
        if self.careful:
            try:
                return self.run(x)
            finally:
                for handle in inner:
                    handle.remove()
        y = self.run(x)
        for handle in inner:
            handle.remove()
        return y


class Careless(Hooking):
    careful = False


def conditions(*shifts):
    return [
        {"x": vectors(seed=n), "c": torch.roll(SCALE, 4 * shift)} for n, shift in enumerate(shifts)
    ]


@pytest.mark.parametrize("shifts", [(0, 1, 2, 3), (0, 1, 1, 0)])
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Conditioned, [f"blocks.{i}.f" for i in range(3)]),
        (ConditionedOnce, ["blocks.0.f"]),
        (Hooking, [f"blocks.{i}" for i in range(3)]),
        (Careless, [f"blocks.{i}" for i in range(3)]),
    ],
)
def test_what_a_pass_leaves_on_modules_is_not_seen_by_another(kind, names, shifts):
    model, data = kind(), conditions(*shifts)
    dense = copy.deepcopy(model)
    with pytest.warns(UserWarning, match="calibrated by passes of the whole model"):
        half(model, data)
    assert not any(hooks_of(model))
    assert_pruned_as_by_plain_passes(model, dense, names, data)


class SometimesHooking(Blocks):
    def forward(self, x):
        inner = []
        if x[0, 0] == 7:
            for block in self.blocks:
                inner.append(block.register_forward_pre_hook(lambda _, a: (a[0] * SCALE,)))
        y = self.run(x)
        for handle in inner:
            handle.remove()
        return y


def test_hooks_of_a_sample_that_was_not_looked_at_before_are_seen():
    model, data = SometimesHooking(), [vectors(seed=s) for s in range(4)]
    data[2][0, 0] = 7
    dense = copy.deepcopy(model)
    with pytest.warns(UserWarning, match="a sample's pass puts hooks"):
        half(model, data)
    assert not any(hooks_of(model))
    assert_pruned_as_by_plain_passes(model, dense, [f"blocks.{i}" for i in range(3)], data)


def test_adapters_chosen_by_sample_are_those_of_plain_passes():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = peft.get_peft_model(llama(), config)
    model.add_adapter("other", config)
    model.eval()
    before = hooks_of(model)
    names = ["default", "other", "default"]
    data = [
        {"input_ids": row[None], "adapter_names": [name]}
        for row, name in zip(tokens(3), names, strict=True)
    ]
    with pytest.warns(UserWarning, match="puts hooks on its modules"):
        half(model, data)
    assert hooks_of(model) == before


class Interplay(Conditioned):
    """Fails outright where another sample's condition is found."""

    def forward(self, x, c):
        return super().forward(x, c[: x.shape[0]])


def test_samples_that_break_each_other_are_parted():
    model = Interplay()
    data = [{"x": vectors(n, seed=n), "c": torch.rand(64, 16) + 0.5} for n in (8, 12, 16)]
    dense = copy.deepcopy(model)
    with pytest.warns(UserWarning, match="halted side by side fail"):
        half(model, data)
    assert_pruned_as_by_plain_passes(model, dense, ["blocks.0.f", "blocks.1.f"], data)


class Locked(Blocks):
    def __init__(self, lock):
        super().__init__()
        self.lock = lock

    def forward(self, x):
        with self.lock:
            return self.run(x)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", [threading.Lock, threading.Condition, threading.Semaphore])
def test_a_pass_that_holds_a_lock_is_not_halted(kind):
    if kind is threading.Condition:
        lock = threading.Condition(threading.Lock())
    else:
        lock = kind()
    with pytest.warns(UserWarning, match="the lock 'lock' is held while 'blocks.0' is called"):
        half(Locked(lock), [vectors(seed=s) for s in range(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half(Locked(threading.RLock()), [vectors(seed=s) for s in range(2)])
        half(Blocks(), [vectors(seed=s) for s in range(2)])
    assert held_lock(None) is None


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("when", ["before", "after"])
def test_hooks_that_were_there_are_applied_once(place, when):
    model, data = Blocks(), [vectors(seed=s) for s in range(2)]
    if when == "before":
        model.blocks[place].register_forward_pre_hook(lambda _, args: (args[0] * SCALE,))
    else:
        model.blocks[place].register_forward_hook(lambda _, args, output: output * SCALE)
    dense, before = copy.deepcopy(model), hooks_of(model)
    half(model, data)
    assert hooks_of(model) == before
    assert_pruned_as_by_plain_passes(model, dense, [f"blocks.{i}" for i in range(3)], data)


def test_hooks_are_hidden_in_place_and_come_back_in_order():
    layer, called = nn.Linear(2, 2), []
    for name in "ab":
        layer.register_forward_pre_hook(lambda *_, name=name: called.append(name))
    known = Hooks([layer])
    later = layer.register_forward_pre_hook(lambda *_: called.append("c"))
    assert known.changed()
    with known.hidden():
        layer(torch.ones(2))
        within = layer.register_forward_pre_hook(lambda *_: called.append("d"))
    assert called == ["c"]
    layer(torch.ones(2))
    assert called == ["c", *"abcd"]
    within.remove()
    later.remove()
    assert not known.changed()
    layer.register_forward_hook(lambda *_: None)
    known.remove_others()
    assert hooks_of(layer) == [2]


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.out = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 16)
        for t in range(x.shape[1]):
            h = torch.tanh(self.cell(h + x[:, t])) * SCALE
        return self.out(h)


@pytest.mark.parametrize("lengths", [(3, 5, 4), (1, 5, 9, 1), (1, 2, 1)])
def test_a_longer_sample_may_call_a_unit_more_often(lengths):
    model, data = Loop(), [torch.randn(8, n, 16) for n in lengths]
    dense = copy.deepcopy(model)
    half(model, data)
    assert_pruned_as_by_plain_passes(model, dense, ["cell", "out"], data)


class Routed(Blocks):
    """Goes through its blocks as the first numbers of the sample say."""

    def forward(self, x):
        return self.run(x, [int(number) for number in x[0] if number >= 0])


def routed(*orders):
    samples = [vectors(seed=n) for n in range(len(orders))]
    for sample, order in zip(samples, orders, strict=True):
        sample[0] = -1
        sample[0, : len(order)] = torch.tensor(order)
    return samples


def test_a_sample_in_another_order_loses_no_call():
    data = routed((0, 1, 2), (2, 0), (0, 1, 2))
    model = Routed()
    dense = copy.deepcopy(model)
    with pytest.warns(UserWarning, match=r"sample 2 of 3 calls 'blocks\.0' in another order"):
        half(model, data)
    assert_pruned_as_by_plain_passes(model, dense, [f"blocks.{i}" for i in range(3)], data)


def test_samples_may_leave_out_units():
    data = routed((0, 1, 2), (0, 2), (1, 2), (2,), (0, 1, 2))
    model = Routed()
    dense = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half(model, data)
    assert_pruned_as_by_plain_passes(model, dense, [f"blocks.{i}" for i in range(3)], data)


@pytest.mark.parametrize("order", [(0, 0, 1, 2), (0, 1, 0, 2), (0, 1, 2, 0), (0, 1, 2, 2)])
def test_a_unit_is_never_calibrated_with_a_part_of_its_calls(order):
    data = routed((0, 1, 2), order, (0, 1, 2))
    twice = max(set(order), key=order.count)
    with pytest.raises(DataError, match=rf"sample 2 of 3 calls 'blocks\.{twice}' again"):
        half(Routed(), data)
    # As the message says.
    data = [data[1], data[0], data[2]]
    model = Routed()
    dense = copy.deepcopy(model)
    half(model, data)
    names = [f"blocks.{i}" for i in dict.fromkeys(order)]
    assert_pruned_as_by_plain_passes(model, dense, names, data)


VARIABLE = contextvars.ContextVar("variable", default=1.0)


class Reading(Blocks):
    def forward(self, x):
        return self.run(x * VARIABLE.get())


def test_a_pass_reads_the_context_that_it_is_started_in():
    model, data = Reading(), [vectors() * SCALE]
    dense = copy.deepcopy(model)
    token = VARIABLE.set(SCALE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            half(model, data)
        assert_pruned_as_by_plain_passes(model, dense, ["blocks.0"], data)
    finally:
        VARIABLE.reset(token)


def test_the_samples_that_are_proved_are_those_that_differ_most():
    x, y, c, d = vectors(), vectors(seed=1), SCALE, SCALE + 1
    assert most_different([x]) is None
    assert most_different([x, x, x]) == 2
    assert most_different([x, y, x]) == 1
    assert most_different([(x, c), (y, d), (y, c)]) == 1
    assert most_different([{"x": x}, {"x": x, "c": c}, {"x": x}]) == 1
    assert most_different([{"x": x, "n": ["a"]}, {"x": y, "n": ["b"]}, {"x": y, "n": ["a"]}]) == 1
    assert extremes([x, y], [0]) == []
    sizes = [vectors(n) for n in (4, 4, 2, 8, 5)]
    assert extremes(sizes, [0]) == [2, 3]
    assert extremes(sizes, [0, 3]) == [2]
