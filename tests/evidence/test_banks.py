"""The roofline of hardware with banks."""

from __future__ import annotations

import pytest
import torch
from thresher.evidence.run._banks import BankedAccelerator

from thresher.core.errors import LayerError, OptionError
from thresher.parts.patterns import NM, Unstructured
from thresher.run.layouts import BankBalanced


def test_a_small_case_by_hand():
    # Two rows of two banks of 4 columns: the fullest banks hold 2 and 1 survivors.
    weight = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 0, 0, 0]])
    chip = BankedAccelerator(10.0, 1e9, value_bytes=2, bank=4, most_sparsity=4)
    assert chip.steps(weight).tolist() == [2, 1]
    # (2 + 1) steps of 2 multipliers for each of 5 rows of x, at 10 products a second.
    assert chip.seconds(weight, 5) == pytest.approx(5 * 3 * 2 / 10)
    assert chip.balance(weight) == pytest.approx(5 / 6)
    # 6 stored weights of 2 bytes and 2 bits; then inputs of 8 and outputs of 2.
    slow = BankedAccelerator(1e12, 10.0, value_bytes=2, bank=4, most_sparsity=4)
    assert slow.weight_bytes(weight) == pytest.approx(6 * 2.25)
    assert slow.seconds(weight, 1) == pytest.approx((6 * 2.25 + (8 + 2) * 2) / 10)


def test_dense_and_empty_weights():
    chip = BankedAccelerator(1e3, 1e9)
    dense = torch.ones(8, 128)
    assert chip.seconds(dense, 1) == pytest.approx(8 * 128 / 1e3)
    assert chip.balance(dense) == 1
    # The hardware gains no more than it is built for.
    assert chip.seconds(torch.zeros(8, 128), 1) == pytest.approx(8 * 128 / 32 / 1e3)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_balance_is_what_makes_the_hardware_fast(n):
    score = torch.rand(64, 512, generator=torch.Generator().manual_seed(0))
    keep = score.numel() // 64 * n
    balanced = score * NM(n, 64).mask(score, keep)
    loose = score * Unstructured().mask(score, keep)
    chip = BankedAccelerator(1e6, 1e12)
    assert chip.balance(balanced) == 1
    assert chip.seconds(torch.ones(64, 512), 16) == pytest.approx(
        64 / n * chip.seconds(balanced, 16)
    )
    assert chip.seconds(loose, 16) > 1.3 * chip.seconds(balanced, 16)


def test_the_layout_finds_its_pattern_and_refuses_others():
    score = torch.rand(8, 192, generator=torch.Generator().manual_seed(0))
    weight = score * NM(4, 64).mask(score, 8 * 3 * 4)
    packed = BankBalanced.from_dense(weight)
    assert packed.settings == {"n": 4, "m": 64}
    assert torch.equal(packed.to_dense(), weight)
    # 6 bits a position, beside 4 bytes a value.
    assert packed.nbytes == 8 * 3 * 4 * 4 + 8 * 3 * 4 * 6 // 8
    with pytest.raises(LayerError, match="looked for 2:64, 4:64"):
        BankBalanced.from_dense(score)


def test_rates_must_be_positive():
    with pytest.raises(OptionError, match="bytes_per_second=0"):
        BankedAccelerator(1.0, 0)
