"""The precision of forward passes is chosen apart from what weights are stored in."""

from contextlib import closing

import pytest
import torch
from model_folders import tiny_llama
from torch import nn

import thresher as th
from thresher.core.errors import OptionError
from thresher.parts.coverage import find_layers
from thresher.parts.moments import Gram
from thresher.stream.collect import collect_inputs
from thresher.stream.precision import Precision, widened
from thresher.stream.source import InMemory
from thresher.stream.stream import Stream
from thresher.stream.units import find_units

CPU = torch.device("cpu")


def windows(count=1):
    return torch.randint(0, 256, (count, 64), generator=torch.Generator().manual_seed(0))


def grams(passes):
    model = tiny_llama(layers=2).eval()
    samples = [{"input_ids": row[None]} for row in windows()]
    units = find_units(model, find_layers(model))
    stream = Stream(InMemory(model), units, samples, precision=Precision(torch.float32, passes))
    with closing(stream.visits()) as visits:
        visit = next(visits)
        found = collect_inputs(model, visit.unit.layers, {Gram}, visit.run)
        return {name: statistics[Gram].value for name, statistics in found.items()}


def test_second_moments_of_rounded_passes_are_summed_in_float32():
    exact, fast = grams(torch.float32), grams(torch.bfloat16)
    for name, gram in fast.items():
        assert gram.dtype == torch.float32
        # One sample of 64 tokens: a product in bfloat16, divided by 64, would stay in bfloat16.
        assert not torch.equal(gram, gram.bfloat16().float()), name
        error = (gram - exact[name]).norm() / exact[name].norm()
        assert error < 0.01, (name, error)
    output = "model.layers.0.self_attn.o_proj"
    assert not torch.equal(fast[output], exact[output])


def test_weights_are_multiplied_as_stored_only_where_that_is_native(monkeypatch):
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda native=native: {"avx512_bf16": native}
        )
        assert Precision.natural(torch.bfloat16, CPU).passes == expected
        assert Precision.natural(torch.bfloat16, CPU, torch.bfloat16).passes == torch.bfloat16
        assert Precision.natural(torch.float32, CPU).passes == torch.float32
    assert Precision.natural(torch.float16, CPU).passes == torch.float32
    assert Precision.natural(torch.float16, torch.device("cuda")).passes == torch.float16


def test_widened_weights_end_as_they_began():
    model = tiny_llama().bfloat16()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with widened(model, Precision(torch.bfloat16, torch.float32)):
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model.lm_head.weight is model.model.embed_tokens.weight
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_passes_of_another_precision_change_the_masks_and_not_the_dtype():
    kept = {}
    for passes in (torch.bfloat16, torch.float32):
        model = tiny_llama().bfloat16()
        th.prune(model, "sparsegpt", windows(4), density=0.5, precision=passes, progress=False)
        weight = model.model.layers[1].mlp.down_proj.weight
        assert weight.dtype == torch.bfloat16
        kept[passes] = weight != 0
    agreement = (kept[torch.bfloat16] == kept[torch.float32]).float().mean()
    assert 0.9 < agreement < 1


@pytest.mark.parametrize("precision", [torch.float16, torch.float32])
def test_compensated_weights_stay_within_a_short_dtype(precision):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False)).half()
    model[0].weight.data.copy_(4e4 + 100 * torch.randn(64, 64))
    twins = 1e-3 * torch.randn(256, 32).repeat_interleave(2, dim=1).half()
    with pytest.warns(UserWarning, match=r"layer .0. gave \d+ weights beyond the 65504"):
        record = th.prune(
            model, "sparsegpt", [twins], density=0.5, precision=precision, progress=False
        )
    assert model[0].weight.abs().max() == 65504
    # The error is that of the weights as they are stored.
    assert record.layers[0].error > 0.01


class Converts(nn.Module):
    """Converts what its layers are given, as only their own dtypes allow."""

    def __init__(self, *dtypes):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16).to(dtype) for dtype in dtypes)
        self.dtypes = dtypes

    def forward(self, x):
        for layer, dtype in zip(self.layers, self.dtypes, strict=True):
            x.add_(1)  # what a pass does to its input is not to reach the samples
            x = layer(x.to(dtype)).float()
        return x


@pytest.mark.parametrize(
    "dtypes",
    [(torch.float16, torch.float32), (torch.float16, torch.float16), (torch.bfloat16,)],
    ids=str,
)
def test_a_model_that_converts_by_itself_keeps_its_dtypes(dtypes):
    torch.manual_seed(0)
    model = Converts(*dtypes).eval()
    data = [torch.randn(8, 16) for _ in range(4)]
    before = [each.clone() for each in data]
    record = th.prune(model, "wanda", data, density=0.5, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(data, before, strict=True))
    assert record.density == pytest.approx(0.5)
    assert [layer.weight.dtype for layer in model.layers] == list(dtypes)


def test_precision_may_be_named():
    for name in ("auto", "float32", "bfloat16"):
        model = nn.Sequential(nn.Linear(8, 8))
        th.prune(model, "wanda", [torch.randn(4, 8)], density=0.5, precision=name, progress=False)
        assert int((model[0].weight != 0).sum()) == 32
    for wrong in ("float99", "int8", torch.int8, "nn"):
        with pytest.raises(OptionError, match="is no floating-point dtype"):
            th.prune(nn.Linear(8, 8), "wanda", density=0.5, precision=wrong)
