"""Layouts on another device than the CPU: nothing stays behind, and products stay right.

``test_devices.py`` runs this file in a process of its own, where the device can be made known.
"""

from __future__ import annotations

import copy
import time
from types import SimpleNamespace

import pytest
import torch
from layout_contract import one_thread, random_weight, tolerance  # noqa: F401
from other_device import DEVICE, OtherDevice
from torch import nn

from thresher.core.errors import LayerError
from thresher.run.layouts import Bitmask, Csr
from thresher.run.layouts.base import Layout
from thresher.run.layouts.convolution import as_matrix
from thresher.run.pack import choose_layouts, pack
from thresher.run.packed.conv import PackedConv2d
from thresher.run.packed.linear import PackedLinear

ALL = sorted(Layout.known())


@pytest.fixture(autouse=True)
def elsewhere():
    torch.manual_seed(0)
    with OtherDevice():
        yield


def stored(name: str, dtype=torch.float32, shape=(37, 128)):
    kind = Layout.named(name)
    return kind.from_dense(kind.example(random_weight(shape, 0.3, dtype, 0)))


def test_the_device_is_a_strict_one():
    moved = torch.ones(3).to(DEVICE)
    assert moved.device == DEVICE
    assert (moved + moved).cpu().tolist() == [2, 2, 2]
    assert torch.zeros(2, device=DEVICE).device == DEVICE
    with pytest.raises(RuntimeError, match="and on the CPU"):
        moved + torch.ones(3)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moved_layouts_multiply_where_they_are(name, dtype):
    packed = stored(name, dtype)
    moved = packed.to(DEVICE)
    assert moved.device == DEVICE
    assert moved.dtype == packed.dtype
    assert all(tensor.device == DEVICE for tensor in moved.tensors().values())
    dense = packed.to_dense()
    assert torch.equal(moved.to_dense().cpu(), dense)
    x, bias = torch.randn(5, packed.shape[1]).to(dtype), torch.randn(packed.shape[0])
    out = moved.matmul(x.to(DEVICE), bias.to(DEVICE))
    assert out.device == DEVICE
    exact = x.double() @ dense.double().T + bias.double()
    # The bias is rounded to the dtype before it is added, and the sum after.
    allowed = tolerance(x, dense) + 2 * (exact.abs() + bias.abs()) * torch.finfo(dtype).eps
    assert bool(((out.cpu().double() - exact).abs() <= allowed).all())
    back = copy.deepcopy(moved).to("cpu")
    assert torch.equal(back.to_dense(), dense)
    assert back.to("cpu") is back


@pytest.mark.parametrize("name", ALL)
def test_gradients_stay_on_the_device(name):
    moved = stored(name).to(DEVICE)
    x = torch.randn(3, moved.shape[1]).to(DEVICE).requires_grad_()
    moved.matmul(x).sum().backward()
    assert x.grad.device == DEVICE
    expected = moved.to_dense().cpu().sum(0).expand(3, -1)
    torch.testing.assert_close(x.grad.cpu(), expected)


@pytest.mark.parametrize("name", ALL)
def test_packed_layers_move_as_modules_do(name):
    kind = Layout.named(name)
    linear = nn.Linear(128, 37)
    linear.weight.data = kind.example(random_weight((37, 128), 0.3, torch.float32, 1))
    packed = PackedLinear.from_linear(linear, kind)
    x = torch.randn(4, 128)
    expected = packed(x)
    state = packed.state_dict()
    packed.to(DEVICE)
    assert packed.layout.device == packed.bias.device == DEVICE
    dense = nn.functional.linear(x, packed.layout.to("cpu").to_dense(), linear.bias)
    torch.testing.assert_close(packed(x.to(DEVICE)).cpu(), dense)
    packed.load_state_dict(state)
    assert packed.layout.device == DEVICE
    packed.cpu()
    assert torch.equal(packed(x), expected)


@pytest.mark.parametrize("name", ["csr", "row-groups"])
def test_packed_convolutions_move_too(name):
    conv = nn.Conv2d(4, 8, 3, stride=2, padding=1)
    matrix = Layout.named(name).example(random_weight((8, 36), 0.4, torch.float32, 0))
    conv.weight.data = matrix.reshape(8, 3, 3, 4).movedim(-1, 1).contiguous()
    assert torch.equal(as_matrix(conv.weight.data), matrix)
    packed = PackedConv2d.from_conv(conv, Layout.named(name))
    images = torch.randn(2, 4, 9, 9)
    expected = packed(images)
    packed.to(DEVICE)
    torch.testing.assert_close(packed(images.to(DEVICE)).cpu(), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(LayerError, match=r"is on elsewhere:0 and was given an input on cpu"):
        packed(images)


def test_inputs_and_buffers_must_be_together():
    packed = stored("bitmask")
    x = torch.randn(2, 128)
    with pytest.raises(
        LayerError, match=r"on cpu and was given an input on elsewhere:0; .*x.to\('cpu'\)"
    ):
        packed.matmul(x.to(DEVICE))
    with pytest.raises(LayerError, match=r"x.to\('elsewhere:0'\)"):
        packed.to(DEVICE).matmul(x)
    tensors = packed.tensors()
    apart = tensors | {"values": tensors["values"].to(DEVICE)}
    with pytest.raises(
        LayerError, match=r"'bitmask' on cpu, 'values' on elsewhere:0; move them together"
    ):
        type(packed).from_tensors(apart, packed.shape, packed.settings)


@pytest.mark.parametrize("name", ["bitmask", "blocks", "csr", "n:m"])
def test_damage_is_found_on_the_device(name):
    packed = stored(name)
    tensors = {key: tensor.to(DEVICE) for key, tensor in packed.tensors().items()}
    tensors["values"] = tensors["values"].reshape(-1)[:-1]
    with pytest.raises(LayerError, match=f"{name} layer of 37 x 128: .*tensor '"):
        type(packed).from_tensors(tensors, packed.shape, packed.settings)


def test_layers_on_a_device_without_kernels_stay_dense():
    model = nn.Sequential(nn.Linear(64, 64, bias=False))
    model[0].weight.data *= torch.rand(64, 64) < 0.1
    choice = choose_layouts(model.to(DEVICE), (1,), ["bitmask", "blocks"], repeats=1).layers[0]
    assert (choice.layout, choice.reason) == ("dense", "no kernel for elsewhere")
    assert choice.dense_bytes == choice.packed_bytes == 64 * 64 * 4


class Event:
    """What timing asks of an event of a stream, by the clock of the CPU."""

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        assert stream == f"stream of {DEVICE}"
        self.at = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, later):
        return (later.at - self.at) * 1e3


@pytest.fixture
def measured(monkeypatch):
    """Lets the device be timed as a CUDA device is, with CSR as if it had a kernel for it."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    cache = SimpleNamespace(L2_cache_size=1 << 20)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: cache)
    monkeypatch.setattr(Csr, "refusal_on", classmethod(lambda cls, device: None))


def test_packing_measures_on_the_device(measured, capsys):
    model = nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 32, bias=False))
    for layer in (model[0], model[2]):
        layer.weight.data *= torch.rand(layer.weight.shape) < 0.1
    x = torch.randn(4, 96)
    expected = model(x)
    model.to(DEVICE)
    packed = pack(model, (1, 4), ["csr"], repeats=1, gain=0.0)
    assert [type(packed[i].layout) for i in (0, 2)] == [Csr, Csr]
    assert packed[0].layout.device == packed[2].layout.device == DEVICE
    torch.testing.assert_close(packed(x.to(DEVICE)).cpu(), expected)
    assert f"Packed on {DEVICE}" in capsys.readouterr().out


def test_layers_on_two_devices_are_told_apart(measured):
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
    model[0].weight.data *= torch.rand(64, 64) < 0.05
    model[1].weight.data = model[0].weight.data.clone()
    model[1].to(DEVICE)
    packing = choose_layouts(model, (1,), ["bitmask", "csr"], repeats=1)
    here, there = (set(layer.seconds) for layer in packing.layers)
    assert here == {"dense", Bitmask.name, Csr.name}
    assert there == {"dense", Csr.name}
    assert packing.machine == f"{torch.get_num_threads()} threads and {DEVICE}"
