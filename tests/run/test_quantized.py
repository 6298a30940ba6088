"""Four bits in groups of 16: rounding to the nearest level, by hand and by its bound."""

from __future__ import annotations

import pytest
import torch
from layout_contract import DTYPES, check_product, one_thread  # noqa: F401

from thresher.run.layouts import GroupSparse4Bit


def test_codes_by_hand():
    weight = torch.zeros(1, 48)
    weight[0, :16] = torch.arange(16.0) - 5  # levels of 1 from -5 to 10: none is rounded
    weight[0, 32:] = torch.tensor([3.0, 1.6, 1.4] + 13 * [0.0])  # levels of 0.2 from 0 to 3
    tensors = GroupSparse4Bit.from_dense(weight).tensors()
    assert tensors["row_starts"].tolist() == [0, 2]
    assert tensors["places"].tolist() == [0, 2]
    assert tensors["scales"].tolist() == pytest.approx([1.0, 0.2])
    assert tensors["zeros"].tolist() == [5, 0]
    assert tensors["codes"][0].tolist() == [16 * (2 * i + 1) + 2 * i for i in range(8)]
    assert tensors["codes"][1].tolist() == [15 + 16 * 8, 7, 0, 0, 0, 0, 0, 0]
    assert torch.equal(GroupSparse4Bit.from_dense(weight).to_dense()[0, :16], weight[0, :16])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("low", [-1.0, 0.0, 2.0, -3.0])
def test_weights_stay_within_half_a_level(low, dtype):
    """Of groups with both signs, with one, and far from zero, which is a level all the same."""
    generator = torch.Generator().manual_seed(0)
    weight = (low + (1 if low >= 0 else 2) * torch.rand(20, 64, generator=generator)).to(dtype)
    packed = GroupSparse4Bit.from_dense(weight)
    groups = weight.reshape(20, 4, 16).double()
    spread = groups.amax(-1).clamp(min=0) - groups.amin(-1).clamp(max=0)
    half = (spread / 15 / 2)[..., None].expand(20, 4, 16).reshape(20, 64)
    eps = torch.finfo(dtype).eps  # of the scale, for up to 15 levels, and of the weight
    allowed = half * (1 + 1e-3) + spread.amax() * eps
    assert bool(((packed.to_dense().double() - weight.double()).abs() <= allowed).all())
    check_product(packed, torch.randn(3, 64, generator=generator).to(dtype), None)


def test_zeros_inside_a_kept_group_stay_zero():
    weight = torch.rand(8, 32, generator=torch.Generator().manual_seed(0)) + 1
    weight[:, ::3] = 0
    assert torch.equal(GroupSparse4Bit.from_dense(weight).to_dense() == 0, weight == 0)
