"""The engine's products on every instruction set, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thresher.core.errors import NumericalError, OptionError
from thresher.run import _run
from thresher.run.engine.formats import Matrix, encode, form_of, joined, lay_out
from thresher.run.engine.quantize import quantize

SHAPES = [(1, 1), (16, 32), (15, 31), (17, 33), (40, 100), (96, 513)]
CODED = [(bits, minimums) for bits in (8, 4) for minimums in (False, True)]
FORMS = ["bf16", "float16", "float32", *CODED]


def held_as(form, weight):
    """Return a matrix in one of all formats, those included that weights are only read in."""
    if isinstance(form, str):
        return encode("w", weight, form)
    bits, minimums = form
    padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % 32))
    codes, scales, least, unit = quantize(padded, bits, minimums)
    return Matrix(f"int{bits}", codes, weight.shape[1], scales, least, unit)


def pack_panels(weight, form, bias=None):
    return lay_out(held_as(form, weight), bias).build()


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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_product_equals_float64(engine_isa, shape, form):
    weight = random_weight(shape)
    bias = random_weight((shape[0],), 1)
    panels = pack_panels(weight, form, bias)
    held = dense(panels, shape)
    # Codes and minimums may each be larger than what they add up to.
    reach = held.abs().T
    if form in FORMS[3:]:
        reach = 3 * held.abs().amax(1, keepdim=True).expand_as(held).T
    for batch in (1, 2, 3, 4, 7, 8, 13, 16, 35):
        x = random_weight((batch, shape[1]), batch)
        exact, slack = (x.double(), torch.zeros_like(x)) if form in FORMS[:3] else rounded(x)
        expected = exact @ held.T + bias.double()
        magnitude = exact.abs() @ reach + bias.double().abs()
        allowed = magnitude * max(8, shape[1] / 8) * torch.finfo(torch.float32).eps
        allowed = allowed + slack.double() @ held.abs().T
        assert bool(((product(panels, x, shape[0]) - expected).abs() <= allowed).all()), batch


@pytest.mark.parametrize("form", FORMS)
def test_a_token_does_not_depend_on_those_beside_it(engine_isa, form):
    panels = pack_panels(random_weight((48, 200)), form)
    x = random_weight((45, 200), 1)
    together = product(panels, x, 48)
    for i in range(45):
        assert torch.equal(product(panels, x[i : i + 1], 48)[0], together[i])


@pytest.mark.parametrize("form", FORMS)
def test_panels_hold_what_the_matrix_holds(engine_isa, form):
    weight = random_weight((37, 53))
    matrix = held_as(form, weight)
    found = dense(lay_out(matrix).build(), (37, 53))
    assert torch.allclose(found, matrix.dense().double(), rtol=0, atol=1e-6)
    if isinstance(form, str):
        assert torch.equal(found, weight.to(matrix.codes.dtype).double())


@pytest.mark.parametrize(
    ("form", "loss"), [((8, False), 0.006), ((4, False), 0.081), ((4, True), 0.0725)]
)
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e8])
def test_matrices_hold_rounded_weights_of_any_size(engine_isa, form, loss, size):
    weight = random_weight((64, 320)) * size
    held = held_as(form, weight).dense()
    assert float((held - weight).norm() / weight.norm()) < loss


@pytest.mark.parametrize("minimums", [False, True])
def test_no_code_is_further_from_its_weight_than_half_a_step(engine_isa, minimums):
    weight = random_weight((64, 320))
    matrix = held_as((4, minimums), weight)
    step = matrix.scales.float().abs().unsqueeze(2) * matrix.unit
    off = (matrix.dense() - weight).abs().unflatten(1, (-1, 32))
    codes = matrix.codes.unflatten(1, (-1, 32))
    inside = (codes > 0) & (codes < 15)
    assert bool((off <= step * 0.501)[inside].all())


# Without minimums, codes of eight bits that do not reach to 127 are taken for a finer grid's.
@pytest.mark.parametrize("form", CODED[1:])
def test_numbers_on_a_grid_are_found_again(engine_isa, form):
    matrix = held_as(form, random_weight((32, 256)))
    again = held_as(form, matrix.dense())
    assert torch.allclose(again.dense(), matrix.dense(), rtol=0, atol=1e-5)


def test_halves_are_rounded_as_torch_rounds_them(engine_isa):
    """A group of one number everywhere has it as its minimum."""
    numbers = torch.cat(
        [
            torch.arange(0x3F00, 0x4200) << 16,
            torch.randint(0, 0x47000000, (5000,), generator=torch.Generator().manual_seed(0)),
        ]
    ).to(torch.int32)
    values = numbers.view(torch.float32)
    codes = np.zeros(32 * len(values), np.uint8)
    scales, minimums = np.zeros((2, len(values)), np.uint16)
    _run.quantize(values.repeat_interleave(32).numpy(), 1.0, 4, codes, scales, minimums)
    assert torch.equal(torch.from_numpy(minimums.view(np.float16)), values.half())


@pytest.mark.parametrize("form", CODED)
def test_the_largest_sums_do_not_overflow(engine_isa, form):
    signs = torch.tensor([1.0, -1.0]).repeat(16, 2048)
    weight = torch.cat([torch.ones(16, 4096), -torch.ones(16, 4096), signs])
    panels = pack_panels(weight, form)
    x = torch.stack([torch.ones(4096), -torch.ones(4096), signs[0]])
    expected = x.double() @ dense(panels, (48, 4096)).T
    assert torch.allclose(product(panels, x, 48).double(), expected, rtol=1e-5, atol=1e-2)


def test_formats_that_differ_are_joined_without_rounding():
    weight = random_weight((32, 64))
    held = [held_as(form, weight) for form in FORMS]
    for chosen in ([5, 6], [3, 5], [4, 6], [3, 4, 5, 6], [0, 1], [2, 6], [6, 6]):
        parts = [held[i] for i in chosen]
        found = joined("w", parts)
        expected = torch.cat([part.dense() for part in parts])
        assert torch.allclose(found.dense(), expected, rtol=0, atol=1e-6)
        assert (found.form == "float32") == any(i < 3 for i in chosen)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_give_nothing_finite(engine_isa, form, wrong):
    panels = pack_panels(random_weight((16, 64)), form)
    x = random_weight((2, 64), 1)
    x[1, 40] = wrong
    out = product(panels, x, 16)
    assert not bool(out[1].isfinite().any())
    assert bool(out[0].isfinite().all())


@pytest.mark.parametrize("form", FORMS)
def test_zeros_stay_zeros(engine_isa, form):
    panels = pack_panels(torch.zeros(5, 40), form)
    assert torch.equal(product(panels, random_weight((3, 40)), 5), torch.zeros(3, 5))
    panels = pack_panels(random_weight((5, 40)), form)
    assert torch.equal(product(panels, torch.zeros(3, 40), 5), torch.zeros(3, 5))


def test_weights_that_are_not_finite_are_refused():
    weight = random_weight((4, 8))
    weight[1, 2] = torch.inf
    with pytest.raises(NumericalError, match=r"model\.w holds weights"):
        encode("model.w", weight, "int4")


def test_formats_by_bits():
    assert form_of(None, torch.float16) == "float16"
    assert form_of(None, torch.float32) == "bf16"
    assert form_of(4, torch.float32) == "int4"
    with pytest.raises(OptionError, match="no weights of 3 bits"):
        form_of(3, torch.float32)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"codes": np.zeros(100, np.uint8)}, "'codes' has 100 entries"),
        ({"scales": np.zeros(3, np.uint16)}, "'scales' has 3 entries"),
        ({"scales": None}, "'scales' do not fit"),
        ({"minimums": np.zeros(3, np.uint16)}, "'minimums' has 3 entries"),
        ({"form": "float32", "scales": None}, "'codes' has 512 entries"),
        ({"bias": np.zeros(3, np.float32)}, "'bias' has 3 entries"),
        ({"form": "int3"}, "format 'int3' is unknown"),
        ({"rows": -1}, "'shape' says"),
        ({"unit": float("nan")}, "'unit' is not positive"),
    ],
)
def test_buffers_of_other_sizes_are_refused(change, problem):
    good = {
        "form": "int8",
        "codes": np.zeros(512, np.uint8),
        "scales": np.zeros(16, np.uint16),
        "minimums": None,
        "unit": 1.0,
        "bias": None,
        "rows": 16,
        "columns": 32,
    }
    _run.Panels(**good)
    with pytest.raises(ValueError, match=problem):
        _run.Panels(**(good | change))
