"""Sparse convolutions: kernels, packed layers and packing."""

from __future__ import annotations

import copy
import math
import threading

import pytest
import torch
from convolution_cases import DENSITIES, SHAPES, check_close, sparse_case
from layout_contract import one_thread  # noqa: F401
from torch import nn

from thresher.core.errors import LayerError, OptionError
from thresher.parts.patterns import Block
from thresher.run import _run, pack
from thresher.run.layouts import Bitmask, Csr, RowGroups
from thresher.run.layouts.convolution import Geometry, as_matrix, as_weight
from thresher.run.measure.choice import DENSE
from thresher.run.pack import choose_layouts
from thresher.run.packed.conv import PackedConv2d


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_convolutions_equal_float64(shape, dtype, isa):
    assert _run.active_isa() == isa
    for seed, density in enumerate(DENSITIES):
        weight, x, bias, geometry = sparse_case(shape, density, seed)
        weight, x = weight.to(dtype), x.to(dtype)
        layouts = [Csr.from_dense(as_matrix(weight))]
        if geometry.groups == 1:
            layouts += [RowGroups.from_dense(as_matrix(weight), g) for g in (1, 2, 3, 4, 8)]
        for layout in layouts:
            out = layout.convolve(x, geometry, bias, -1.0, 2.5)
            assert out.dtype == dtype
            check_close(out, weight, x, bias, geometry, -1.0, 2.5)
            out = layout.convolve(x, geometry)
            check_close(out, weight, x, torch.zeros(len(bias)), geometry)


def test_nan_and_infinity_reach_the_output_through_the_clamp():
    layout = Csr.from_dense(torch.eye(2))
    x = torch.tensor([math.nan, math.inf]).reshape(1, 2, 1, 1)
    out = layout.convolve(x, Geometry((1, 1)), None, 0.0, 6.0).flatten()
    assert math.isnan(out[0])
    assert out[1] == 6


@pytest.mark.parametrize("shape", SHAPES[1:10], ids=str)
def test_bit_identical_across_threads(shape, isa):
    weight, x, bias, geometry = sparse_case(shape, 0.4)
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        matrix = as_matrix(weight)
        results.append([Csr.from_dense(matrix).convolve(x, geometry, bias)])
        if geometry.groups == 1:
            results[-1].append(RowGroups.from_dense(matrix, 4).convolve(x, geometry, bias))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_several_python_threads_at_once():
    weight, x, bias, geometry = sparse_case(SHAPES[6], 0.5)
    layout = Csr.from_dense(as_matrix(weight))
    torch.set_num_threads(2)
    expected = layout.convolve(x, geometry, bias)
    wrong = []

    def work():
        for _ in range(50):
            if not torch.equal(layout.convolve(x, geometry, bias), expected):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_large_layers_are_cut_into_bands():
    """More channels, positions and rows than a band holds."""
    for shape in [
        (70, 20, 2, 60, 64, (3, 3), (1, 1), (1, 1), (1, 1), 1),
        (70, 20, 1, 60, 65, (3, 3), (2, 2), (1, 1), (1, 1), 1),
        (600, 9, 2, 14, 14, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    ]:
        weight, x, bias, geometry = sparse_case(shape, 0.1)
        for layout in (
            Csr.from_dense(as_matrix(weight)),
            RowGroups.from_dense(as_matrix(weight), 4),
        ):
            check_close(layout.convolve(x, geometry, bias), weight, x, bias, geometry)


def test_images_that_do_not_fit_are_refused():
    layout = Csr.from_dense(torch.eye(8))
    with pytest.raises(LayerError, match="expected \\(images, channels, height, width\\)"):
        layout.convolve(torch.randn(1, 7, 3, 3), Geometry((1, 1)))
    with pytest.raises(LayerError, match="convert one of them"):
        layout.convolve(torch.randn(1, 8, 3, 3).bfloat16(), Geometry((1, 1)))
    with pytest.raises(LayerError, match="does not fit into an image of 3 x 3"):
        layout.convolve(torch.randn(1, 2, 3, 3), Geometry((1, 4)))
    with pytest.raises(ValueError, match="positive kernel"):
        _run.Convolution((1, 1, 4, 4), (1, 1), (0, 1), (1, 1), (0, 0), (1, 1), 1)
    with pytest.raises(ValueError, match="share 3 channels"):
        _run.Convolution((1, 3, 4, 4), (1, 1), (1, 1), (1, 1), (0, 0), (1, 1), 2)
    with pytest.raises(ValueError, match="too large"):
        _run.Convolution((1, 1, 4, 4), (1, 1 << 30), (9, 9), (1, 1), (0, 0), (1, 1), 1)


def test_row_groups_find_rows_that_were_moved():
    generator = torch.Generator().manual_seed(0)
    supports = torch.rand(6, 40, generator=generator) < 0.3
    order = torch.randperm(24, generator=generator)
    weight = torch.randn(24, 40, generator=generator) * supports.repeat_interleave(4, 0)[order]
    packed = RowGroups.from_dense(weight)
    assert packed.settings == {"group": 4}
    assert packed.tensors()["values"].numel() == int((weight != 0).sum())
    assert torch.equal(packed.to_dense(), weight)
    x = torch.randn(2, 40, 5, 5, generator=generator)
    exact = torch.einsum("oc,ncij->noij", weight.double(), x.double())
    out = packed.convolve(x, Geometry((1, 1))).double()
    torch.testing.assert_close(out, exact, rtol=1e-5, atol=1e-5)
    assert "do not share" in RowGroups.refusal(torch.randn(8, 40) * (torch.rand(8, 40) < 0.3))
    with pytest.raises(OptionError, match="group=0"):
        RowGroups.from_dense(weight, 0)


def test_row_order_must_name_every_row_once():
    packed = RowGroups.from_dense(torch.randn(8, 4), 4)
    tensors = packed.tensors()
    tensors["order"] = torch.tensor([0, 1, 2, 3, 4, 5, 6, 6], dtype=torch.uint16)
    with pytest.raises(LayerError, match="order"):
        RowGroups.from_tensors(tensors, packed.shape, packed.settings)


# --- packed layers


def conv_and_packed(layout=Csr, **options):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, **options)
    conv.weight.data *= torch.rand_like(conv.weight) < 0.3
    return conv, PackedConv2d.from_conv(conv, layout)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same", "dilation": 2},
        {"stride": 2, "padding": 1, "bias": False},
        {"groups": 2, "padding": (2, 0)},
    ],
    ids=str,
)
def test_packed_convolution_equals_dense(options):
    conv, packed = conv_and_packed(**options)
    x = torch.randn(3, 6, 12, 13, requires_grad=True)
    expected = conv(x)
    grad = torch.randn_like(expected)
    (expected_grad,) = torch.autograd.grad(expected, x, grad)
    out = packed(x)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(out, x, grad)[0], expected_grad, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(packed(x.detach()), expected, rtol=1e-5, atol=1e-5)
    assert packed.in_channels == 6
    assert packed.out_channels == 8


def test_gradient_stops_where_the_clamp_holds():
    conv, packed = conv_and_packed()
    packed.low, packed.high = 0.0, 0.5
    x = torch.randn(1, 6, 8, 8, requires_grad=True)
    expected = conv(x).clamp(0, 0.5)
    (expected_grad,) = torch.autograd.grad(expected.sum(), x)
    (found,) = torch.autograd.grad(packed(x).sum(), x)
    torch.testing.assert_close(found, expected_grad, rtol=1e-4, atol=1e-5)


def test_state_dict_and_copies_keep_the_geometry():
    _, packed = conv_and_packed(stride=2, padding=1)
    packed.low = 0.0
    x = torch.randn(1, 6, 9, 9)
    twin = copy.deepcopy(packed)
    assert torch.equal(twin(x), packed(x))
    _, other = conv_and_packed(stride=2, padding=1)
    other.load_state_dict(packed.state_dict())
    assert torch.equal(other(x).clamp(min=0), packed(x))
    half = copy.deepcopy(packed).bfloat16()
    torch.testing.assert_close(half(x.bfloat16()).float(), packed(x), rtol=3e-2, atol=3e-2)
    damaged = packed.state_dict()
    damaged["weight_indices"] = (damaged["weight_indices"].long() + 60).to(torch.uint16)
    with pytest.raises(LayerError, match="indices"):
        packed.load_state_dict(damaged)


def test_layers_that_cannot_be_packed_are_named():
    conv, _ = conv_and_packed()
    with pytest.raises(LayerError, match="cannot convolve"):
        PackedConv2d.from_conv(conv, Bitmask)
    with pytest.raises(LayerError, match="in 2 groups"):
        PackedConv2d.from_conv(nn.Conv2d(4, 4, 1, groups=2), RowGroups)
    with pytest.raises(LayerError, match="'reflect'"):
        PackedConv2d.from_conv(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), Csr)


# --- packing


def small_network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)),
        nn.ReLU6(),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        nn.Conv2d(16, 16, 1, padding_mode="reflect", padding=0),
        nn.Flatten(),
        nn.Linear(16 * 64, 10),
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= torch.rand_like(module.weight) < 0.2
    return model.eval()


def test_pack_keeps_outputs(capsys):
    model = small_network()
    x = torch.randn(2, 3, 8, 8)
    expected = model(x)
    pack(model, batch=(1,), repeats=1, gain=0.0, example=x)
    assert isinstance(model[0][0], PackedConv2d)
    assert isinstance(model[2], PackedConv2d)
    assert type(model[3]) is nn.Conv2d
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert "16 x 72" in capsys.readouterr().out


def test_convolutions_stay_dense_without_an_example():
    model = small_network()
    found = {layer.name: layer for layer in choose_layouts(model, (1,), repeats=1).layers}
    assert found["0.0"].layout == DENSE
    assert found["0.0"].reason == "no example showed the size of its images"
    with pytest.raises(LayerError, match="does not run on the example"):
        choose_layouts(model, (1,), repeats=1, example=torch.randn(1, 4, 8, 8))


def test_matrix_form_is_that_of_the_pruning_rooms():
    from thresher.parts.layers import Layer

    conv = nn.Conv2d(4, 8, 3)
    assert torch.equal(as_matrix(conv.weight.detach()), Layer("conv", conv).matrix())
    assert torch.equal(as_weight(as_matrix(conv.weight.detach()), (3, 3)), conv.weight)
    mask = Block(4, 1).mask(Layer("conv", conv).matrix().abs(), 96)
    assert RowGroups.from_dense(Layer("conv", conv).matrix() * mask).settings == {"group": 4}
