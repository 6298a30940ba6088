"""Packing whole models."""

from __future__ import annotations

import copy
import itertools
import sys

import pytest
import torch
from layout_contract import one_thread  # noqa: F401
from torch import nn

from thresher.core.errors import LayerError, OptionError
from thresher.run.layouts import Bitmask, Csr
from thresher.run.measure import timing
from thresher.run.measure.bench import BenchResult
from thresher.run.measure.choice import DENSE, Choices, LayerChoice
from thresher.run.measure.timing import Comparison, compare
from thresher.run.pack import choose_layouts, pack
from thresher.run.packed.linear import PackedLinear


def sparse_model(density: float = 0.02) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 768), nn.ReLU(), nn.Linear(768, 512, bias=False))
    for layer in (model[0], model[2]):
        layer.weight.data *= torch.rand_like(layer.weight) < density
    return model.bfloat16().requires_grad_(False)


def test_pack_keeps_outputs_and_replaces_layers(capsys):
    model = sparse_model()
    x = torch.randn(4, 512).bfloat16()
    expected = model.float()(x.float())
    packed = pack(model.bfloat16(), batch=(1, 4), repeats=2, gain=0.0)
    assert packed is model
    assert isinstance(model[0], PackedLinear)
    assert isinstance(model[2], PackedLinear)
    torch.testing.assert_close(model(x).float(), expected, rtol=2e-2, atol=2e-2)
    printed = capsys.readouterr().out
    assert "768 x 512" in printed
    assert "unstructured" in printed


def test_layers_without_zeros_stay_dense():
    model = nn.Sequential(nn.Linear(64, 64))
    packing = choose_layouts(model, batch=(1,), repeats=1)
    assert packing.layers[0].layout == DENSE
    assert packing.layers[0].reason == "no layout is smaller"
    packing.apply(model)
    assert type(model[0]) is nn.Linear


def test_nothing_wins_against_an_unreachable_gain():
    packing = choose_layouts(sparse_model(), batch=(1,), repeats=1, gain=1e9)
    assert {layer.layout for layer in packing.layers} == {DENSE}
    assert packing.layers[0].reason.startswith("best was")


def test_the_table_has_a_row_for_each_kind_of_layer():
    def layer(name, milliseconds, reason="", layout="csr"):
        seconds = {DENSE: {1: milliseconds / 1e3}, "csr": {1: 1e-3}}
        return LayerChoice(
            name, (8, 4), torch.bfloat16, 0.5, "unstructured", layout, 2_000_000, 1_000_000,
            seconds, reason=reason,
        )  # fmt: skip

    packing = Choices(
        [
            layer("blocks.0.up", 2.0),
            layer("blocks.1.up", 4.0),
            layer("blocks.0.down", 2.0, "best was csr, 1.01x", DENSE),
            layer("blocks.1.down", 2.0, "best was csr, 1.01x", DENSE),
            layer("blocks.2.down", 2.0, "no layout is smaller", DENSE),
        ],
        (1,),
        "2 threads",
    )
    rows = list(zip(*(column.cells for column in packing.table().columns), strict=True))
    assert rows == [
        ("blocks.*.up", "2", "0 %", "8 x 4", "0.5", "unstructured", "csr", "4", "2",
         "6", "2", "3x"),
        ("blocks.*.down", "3", "0 %", "8 x 4", "0.5", "unstructured",
         "dense (mostly: best was csr, 1.01x)", "6", "3", "6", "6", "1x"),
    ]  # fmt: skip
    names = list(packing.table(every_layer=True).columns[0].cells)
    assert names == [layer.name for layer in packing.layers]


def test_patterns_are_named():
    weight = torch.ones(64, 64)
    weight.view(64, 16, 4)[..., 2:] = 0
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    model[0].weight.data = weight
    model[1].weight.data = torch.ones(64, 64)
    model[1].weight.data[:32] = 0
    names = [layer.pattern for layer in choose_layouts(model, (1,), repeats=1).layers]
    assert names == ["2:4", "rows/columns"]


@pytest.mark.parametrize("batch", [(), (0,)])
def test_bad_batches_are_refused(batch):
    with pytest.raises(OptionError, match="batch"):
        choose_layouts(sparse_model(), batch)


def test_state_dict_round_trip_without_dense():
    packed = PackedLinear.from_linear(sparse_model()[0], Bitmask)
    other = PackedLinear.from_linear(sparse_model(0.5)[0], Bitmask)
    state = packed.state_dict()
    assert set(state) == {"bias", "weight_bitmask", "weight_shape", "weight_values"}
    other.load_state_dict(state)
    x = torch.randn(3, 512).bfloat16()
    assert torch.equal(other(x), packed(x))


def test_damaged_state_dict_is_refused():
    packed = PackedLinear.from_linear(sparse_model()[0], Csr)
    state = packed.state_dict()
    state["weight_indices"] = state["weight_indices"][:-1]
    with pytest.raises(LayerError, match="indices"):
        packed.load_state_dict(state)
    state.pop("weight_indices")
    with pytest.raises(RuntimeError, match=r"weight_indices"):
        packed.load_state_dict(state)


def test_copies_and_casts():
    packed = PackedLinear.from_linear(sparse_model()[0], Bitmask)
    twin = copy.deepcopy(packed)
    x = torch.randn(3, 512).bfloat16()
    assert torch.equal(twin(x), packed(x))
    assert (
        twin.layout.tensors()["values"].data_ptr() != packed.layout.tensors()["values"].data_ptr()
    )
    twin.float()
    torch.testing.assert_close(twin(x.float()), packed(x).float(), rtol=2e-2, atol=2e-2)


def test_noise_is_read_from_the_control():
    quiet = Comparison({"dense": [1.0, 1.01, 1.02], "x": [0.5] * 3}, [1.0, 1.01, 1.0])
    loaded = Comparison({"dense": [1.0, 1.5, 1.6], "x": [0.5] * 3}, [1.0, 1.7, 1.9])
    apart = Comparison({"dense": [1.0, 1.0, 1.0], "x": [0.5] * 3}, [1.2, 1.2, 1.2])
    assert not quiet.noisy
    assert loaded.noisy
    assert apart.noisy


def compared_order(monkeypatch, clock):
    order = []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    functions = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    compare(functions, 2, cold=False)
    return "".join(order)


def test_compare_interleaves(monkeypatch):
    assert compared_order(monkeypatch, itertools.count()) == "ab" + 2 * "aba"


def test_compare_goes_on_while_times_are_noisy(monkeypatch):
    slower_and_slower = (n * n for n in itertools.count())
    assert compared_order(monkeypatch, slower_and_slower) == "ab" + 6 * "aba"


def test_the_rival_is_the_dense_dtype_that_is_faster_here(monkeypatch):
    """On a processor without bfloat16 a layout that only beats dense bfloat16 does not win."""
    times = {"dense": 4e-3, "dense float32": 1e-3, "bitmask": 2e-3, "csr": 3e-3}

    def measured(functions, repeats, **_):
        return Comparison({name: [times[name]] * 2 for name in functions}, [times["dense"]] * 2)

    # The package has a function of the module's name.
    monkeypatch.setattr(sys.modules["thresher.run.pack"], "compare", measured)
    weight = torch.randn(64, 64) * (torch.rand(64, 64) < 0.3)
    model = nn.Sequential(nn.Linear(64, 64, bias=False, dtype=torch.bfloat16))
    with torch.no_grad():
        model[0].weight.copy_(weight)
    (slow,) = choose_layouts(model, (1,), ["bitmask", "csr"]).layers
    assert slow.layout == "dense"
    assert slow.reason == "best was bitmask, 0.5x of dense float32"
    times["bitmask"] = 0.5e-3
    choices = choose_layouts(model, (1,), ["bitmask", "csr"])
    assert choices.layers[0].layout == "bitmask"
    assert choices.layers[0].rival(1) == 1e-3
    text = "".join(str(cell) for column in choices.table().columns for cell in column.cells)
    assert "2x" in text


def test_the_spread_of_a_speedup_is_of_single_repeats():
    seconds = {"dense": [3.0, 2.0, 4.0], "packed": [1.0, 2.0, 2.0]}
    found = BenchResult({"dense": 16.0, "packed": 32.0}, seconds, {}, {}, {}, False, 1, 1, 32)
    assert found.speedup == 2
    assert found.spread == (1.0, 3.0)
