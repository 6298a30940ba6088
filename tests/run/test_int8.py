"""Int8 blocks: exact integer sums, and inputs that cannot be rounded."""

from __future__ import annotations

import pytest
import torch
from layout_contract import DTYPES, one_thread, random_weight  # noqa: F401

from thresher.core.errors import LayerError
from thresher.parts.patterns import Block
from thresher.run.layouts import Int8Blocks


def exact_product(packed: Int8Blocks, x: torch.Tensor) -> torch.Tensor:
    """The product of the rounded operands in 64-bit integers, scaled as the kernel scales it."""
    largest = x.float().abs().amax(1, keepdim=True)
    # `127 / largest` would multiply with the reciprocal, which rounds twice.
    levels = (x.float() * torch.where(largest > 0, torch.tensor(127.0) / largest, 0)).round()
    integers = levels.long() @ packed.codes().long().T
    scales = packed.tensors()["scales"].float() * (largest / 127)
    return (integers.float() * scales).to(x.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 4), (1, 1), (37, 53), (64, 400), (20, 4099)])
def test_sums_are_those_of_integers(isa, shape, dtype):
    weight = Int8Blocks.example(random_weight(shape, 0.4, dtype, 0))
    packed = Int8Blocks.from_dense(weight)
    for batch in (1, 3, 4, 5, 16, 17, 40, 64, 65, 130):
        generator = torch.Generator().manual_seed(batch)
        x = torch.randn(batch, shape[1], generator=generator).to(dtype)
        assert torch.equal(packed.matmul(x), exact_product(packed, x)), batch


def test_the_largest_sums_do_not_overflow(isa):
    weight = torch.ones(8, 1 << 16)
    weight[4:] = -1
    packed = Int8Blocks.from_dense(weight)
    for batch in (1, 16):
        out = packed.matmul(torch.ones(batch, 1 << 16))
        assert torch.equal(out, torch.tensor([65536.0] * 4 + [-65536.0] * 4).expand(batch, 8))


def test_codes_by_hand():
    weight = torch.zeros(4, 5)
    weight[:, 1] = torch.tensor([1.0, -2.0, 0.5, 0.0])
    weight[0, 4] = 0.5
    packed = Int8Blocks.from_dense(weight)
    tensors = packed.tensors()
    # Two blocks, filled to a group with the first empty columns.
    assert tensors["columns"].tolist() == [[0, 1, 2, 4]]
    assert tensors["values"][0].tolist() == [
        [0, 127, 0, 64], [0, -127, 0, 0], [0, 127, 0, 0], [0, 0, 0, 0]
    ]  # fmt: skip
    assert torch.equal(tensors["scales"], torch.tensor([1, 2, 0.5, 0]) / 127)


def test_rounding_keeps_weights_within_half_a_level():
    weight = random_weight((64, 256), 1.0, torch.float32, 1)
    pattern = Block(4, 1)
    weight *= pattern.mask(weight.abs(), pattern.count(weight.shape, 0.3))
    packed = Int8Blocks.from_dense(weight)
    half = weight.abs().amax(1, keepdim=True) / 127 / 2
    assert bool(((packed.to_dense() - weight).abs() <= half * 1.0001).all())
    assert packed.nbytes < 0.4 * weight.numel() * 1.5


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite_give_nan_and_leave_others_alone(isa, wrong):
    weight = Int8Blocks.example(random_weight((12, 40), 0.5, torch.float32, 2))
    packed = Int8Blocks.from_dense(weight)
    for batch in (3, 20):
        x = torch.randn(batch, 40)
        expected = packed.matmul(x)
        x[1, 7] = wrong
        out = packed.matmul(x)
        assert bool(out[1].isnan().all())
        others = [b for b in range(batch) if b != 1]
        assert torch.equal(out[others], expected[others])


def test_tiny_and_zero_inputs(isa):
    packed = Int8Blocks.from_dense(torch.ones(4, 8))
    x = torch.zeros(2, 8)
    x[1, 0] = 1e-44
    out = packed.matmul(x)
    assert torch.equal(out[0], torch.zeros(4))
    assert bool((out[1].abs() <= 1e-43).all())


def test_too_many_columns_are_refused():
    with pytest.raises(LayerError, match="more than 65,536 columns"):
        Int8Blocks.from_dense(torch.zeros(4, (1 << 16) + 1))
