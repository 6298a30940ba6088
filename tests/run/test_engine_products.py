"""The engine's products on every instruction set, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thresher.core.errors import NumericalError, OptionError
from thresher.run import _run
from thresher.run.engine.formats import pack_panels, quantize

SHAPES = [(1, 1), (16, 32), (15, 31), (17, 33), (40, 100), (96, 513)]
BITS = (None, 8, 4)


def random_weight(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dense(panels, shape):
    out = np.empty(shape, np.float32)
    panels.dequantize(out)
    return torch.from_numpy(out).double()


def product(panels, x, rows):
    out = np.full((len(x), rows), np.nan, np.float32)
    panels.multiply(x.numpy(), out)
    return torch.from_numpy(out)


def rounded(x):
    """Inputs as the kernels round them, in float64, and how far rounding may differ by a tie."""
    columns = x.shape[1]
    groups = torch.nn.functional.pad(x, (0, -columns % 32)).unflatten(1, (-1, 32))
    largest = groups.abs().amax(2, keepdim=True)
    levels = torch.where(largest > 0, 127 / largest, 0)
    codes = (groups * levels).round().double()
    values = (codes * (largest / 127).double()).flatten(1)[:, :columns]
    near_tie = ((groups * levels).frac().abs() - 0.5).abs() < 1e-4
    slack = (near_tie * largest / 127).double().flatten(1)[:, :columns]
    return values, slack


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_product_equals_float64(isa, shape, bits):
    weight = random_weight(shape)
    bias = random_weight((shape[0],), 1)
    panels = pack_panels("w", weight, bits, bias)
    held = dense(panels, shape)
    for batch in (1, 2, 3, 4, 7, 8, 13):
        x = random_weight((batch, shape[1]), batch)
        exact, slack = (x.double(), torch.zeros_like(x)) if bits is None else rounded(x)
        expected = exact @ held.T + bias.double()
        magnitude = exact.abs() @ held.abs().T + bias.double().abs()
        allowed = magnitude * max(8, shape[1] / 8) * torch.finfo(torch.float32).eps
        allowed = allowed + slack.double() @ held.abs().T
        assert bool(((product(panels, x, shape[0]) - expected).abs() <= allowed).all()), batch


@pytest.mark.parametrize("bits", BITS)
def test_a_token_does_not_depend_on_those_beside_it(isa, bits):
    panels = pack_panels("w", random_weight((48, 200)), bits)
    x = random_weight((13, 200), 1)
    together = product(panels, x, 48)
    for i in range(13):
        assert torch.equal(product(panels, x[i : i + 1], 48)[0], together[i])


def test_bf16_panels_hold_the_weights():
    weight = random_weight((37, 53))
    held = dense(pack_panels("w", weight, None), (37, 53))
    assert torch.equal(held, weight.bfloat16().double())


@pytest.mark.parametrize(("bits", "loss"), [(8, 0.006), (4, 0.085)])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e8])
def test_panels_hold_rounded_weights_of_any_size(bits, loss, size):
    weight = random_weight((64, 320)) * size
    held = dense(pack_panels("w", weight, bits), (64, 320))
    assert float((held - weight).norm() / weight.norm()) < loss


def test_scales_are_searched():
    weight = random_weight((64, 320))
    codes, scales, unit = quantize(weight, 4)
    found = (codes.float() * scales.float().unsqueeze(2) * unit).flatten(1)
    groups = weight.unflatten(1, (-1, 32))
    plain_scale = groups.abs().amax(2, keepdim=True) / 7
    plain = ((groups / plain_scale).round().clamp(-8, 7) * plain_scale).flatten(1)
    assert float((found - weight).norm()) < 0.93 * float((plain - weight).norm())
    assert int(codes.min()) >= -8
    assert int(codes.max()) <= 7


@pytest.mark.parametrize("bits", [8, 4])
def test_the_largest_sums_do_not_overflow(isa, bits):
    signs = torch.tensor([1.0, -1.0]).repeat(16, 2048)
    weight = torch.cat([torch.ones(16, 4096), -torch.ones(16, 4096), signs])
    panels = pack_panels("w", weight, bits)
    x = torch.stack([torch.ones(4096), -torch.ones(4096), signs[0]])
    expected = x.double() @ dense(panels, (48, 4096)).T
    assert torch.allclose(product(panels, x, 48).double(), expected, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_give_nan(isa, bits, wrong):
    panels = pack_panels("w", random_weight((16, 64)), bits)
    x = random_weight((2, 64), 1)
    x[1, 40] = wrong
    out = product(panels, x, 16)
    assert bool(out[1].isnan().all())
    assert bool(out[0].isfinite().all())


@pytest.mark.parametrize("bits", BITS)
def test_zeros_stay_zeros(isa, bits):
    panels = pack_panels("w", torch.zeros(5, 40), bits)
    assert torch.equal(product(panels, random_weight((3, 40)), 5), torch.zeros(3, 5))
    panels = pack_panels("w", random_weight((5, 40)), bits)
    assert torch.equal(product(panels, torch.zeros(3, 40), 5), torch.zeros(3, 5))


def test_weights_that_are_not_finite_are_refused():
    weight = random_weight((4, 8))
    weight[1, 2] = torch.inf
    with pytest.raises(NumericalError, match=r"model\.w holds weights"):
        pack_panels("model.w", weight, 4)


def test_other_bits_are_refused():
    with pytest.raises(OptionError, match="no weights of 3 bits"):
        pack_panels("w", torch.zeros(2, 2), 3)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"codes": np.zeros(100, np.uint8)}, "'codes' has 100 entries"),
        ({"scales": np.zeros(3, np.uint16)}, "'scales' has 3 entries"),
        ({"scales": None}, "'scales' do not fit"),
        ({"bias": np.zeros(3, np.float32)}, "'bias' has 3 entries"),
        ({"format": "int3"}, "format 'int3' is unknown"),
        ({"rows": -1}, "'shape' says"),
        ({"unit": float("nan")}, "'unit' is not positive"),
    ],
)
def test_buffers_of_other_sizes_are_refused(change, problem):
    good = {
        "format": "int8",
        "codes": np.zeros(512, np.uint8),
        "scales": np.zeros(16, np.uint16),
        "unit": 1.0,
        "bias": None,
        "rows": 16,
        "columns": 32,
    }
    _run.Panels(**good)
    with pytest.raises(ValueError, match=problem):
        _run.Panels(**(good | change))
