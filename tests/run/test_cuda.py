"""Layouts, modules and packing on a CUDA device; skipped where there is none."""

from __future__ import annotations

import itertools

import pytest
import torch
from layout_contract import DTYPES, random_weight, tolerance
from torch import nn

from thresher.run.layouts import SemiStructured
from thresher.run.layouts.base import Layout
from thresher.run.measure.timing import compare
from thresher.run.pack import choose_layouts, pack
from thresher.run.packed.linear import PackedLinear

if not torch.cuda.is_available():
    pytest.skip("torch sees no CUDA device", allow_module_level=True)

CUDA = torch.device("cuda", torch.cuda.current_device())
SHAPES = [(1, 1), (17, 33), (37, 513), (160, 2051), (512, 1024)]
BATCHES = (0, 1, 2, 16, 33, 130)


@pytest.fixture(autouse=True)
def sums_in_float32(monkeypatch):
    """Dense products may otherwise add parts of a bfloat16 sum in bfloat16."""
    matmul = torch.backends.cuda.matmul
    monkeypatch.setattr(matmul, "allow_bf16_reduced_precision_reduction", False)
    monkeypatch.setattr(matmul, "allow_tf32", False)


def check_on_device(packed, dense, batch, dtype):
    """The product on the device equals the float64 one on the CPU."""
    x, bias = torch.randn(batch, dense.shape[1]).to(dtype), torch.randn(dense.shape[0])
    out = packed.matmul(x.to(CUDA), bias.to(CUDA))
    assert (out.device, out.dtype) == (CUDA, dtype)
    exact = x.double() @ dense.double().T + bias.double()
    # Dense products add the bias in the dtype: it and the sum are rounded.
    allowed = tolerance(x, dense) + 2 * (exact.abs() + bias.abs()) * torch.finfo(dtype).eps
    assert bool(((out.cpu().double() - exact).abs() <= allowed).all()), (packed, batch)


@pytest.mark.parametrize("name", sorted(Layout.known()))
def test_products_equal_float64(name):
    layout = Layout.named(name)
    for seed, (shape, dtype) in enumerate(itertools.product(SHAPES, DTYPES)):
        for density in (0.0, 0.1, 0.5, 1.0):
            weight = layout.example(random_weight(shape, density, dtype, seed))
            if weight is None:
                continue
            moved = layout.from_dense(weight).to(CUDA)
            dense = moved.to_dense().cpu()
            if layout.exact:
                assert torch.equal(dense, weight)
            for batch in BATCHES:
                check_on_device(moved, dense, batch, dtype)


@pytest.mark.skipif(
    SemiStructured.refusal_on(CUDA) is not None, reason="no sparse tensor cores for torch here"
)
@pytest.mark.parametrize("batch", [1, 8, 33, 256])
def test_semi_structured_is_compressed_and_multiplied(batch):
    weight = SemiStructured.example(random_weight((256, 512), 1.0, torch.bfloat16, 0))
    moved = SemiStructured.from_dense(weight).to("cuda")
    assert moved._compressed is not None
    check_on_device(moved, weight, batch, torch.bfloat16)
    assert torch.equal(moved.to("cpu").to_dense(), weight)


@pytest.mark.parametrize("name", ["bitmask", "blocks"])
@pytest.mark.parametrize("batch", [1, 16])
def test_the_same_input_gives_the_same_bits(name, batch):
    layout = Layout.named(name)
    weight = layout.example(random_weight((300, 700), 0.4, torch.bfloat16, 0))
    moved = layout.from_dense(weight).to("cuda")
    x = torch.randn(batch, 700, device="cuda").bfloat16()
    first = moved.matmul(x)
    assert all(torch.equal(moved.matmul(x), first) for _ in range(5))


def test_modules_move_to_the_device_and_back():
    layout = Layout.named("bitmask")
    linear = nn.Linear(96, 64)
    linear.weight.data *= torch.rand(64, 96) < 0.4
    packed = PackedLinear.from_linear(linear, layout)
    x = torch.randn(5, 96)
    expected = packed(x)
    packed.cuda()
    assert packed.layout.device.type == "cuda"
    torch.testing.assert_close(packed(x.cuda()).cpu(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(packed.cpu()(x), expected)


def test_pack_measures_on_the_device(capsys):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 768), nn.ReLU(), nn.Linear(768, 512, bias=False))
    for layer in (model[0], model[2]):
        layer.weight.data *= torch.rand_like(layer.weight) < 0.1
    model = model.bfloat16().cuda().requires_grad_(False)
    x = torch.randn(4, 512, device="cuda").bfloat16()
    expected = model(x)
    choices = choose_layouts(model, (1, 4), repeats=2).layers
    assert {"dense", "bitmask", "blocks"} & set(choices[0].seconds) == {"dense", "bitmask"}
    assert "csr" not in choices[0].seconds
    assert all(t > 0 for c in choices for times in c.seconds.values() for t in times.values())
    pack(model, (1, 4), repeats=2, gain=0.0)
    assert isinstance(model[0], PackedLinear)
    assert model[0].layout.device.type == "cuda"
    torch.testing.assert_close(model(x), expected, rtol=3e-2, atol=3e-2)
    assert torch.cuda.get_device_name() in capsys.readouterr().out


def test_times_are_those_of_the_device():
    a = torch.randn(4096, 4096, device="cuda")
    compared = compare({"one": lambda: a @ a, "four": lambda: a @ a @ a @ a @ a}, device=CUDA)
    assert 2 < compared.best("four") / compared.best("one") < 8
