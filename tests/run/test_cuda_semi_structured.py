"""The layout semi-structured, as far as it goes without a device."""

from __future__ import annotations

import pytest
import torch
from layout_contract import random_weight
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from thresher.core.errors import LayerError
from thresher.run.layouts import NofM, SemiStructured
from thresher.run.layouts.base import Layout
from thresher.run.pack import choose_layouts


def two_of_four(rows: int, columns: int, dtype=torch.bfloat16) -> torch.Tensor:
    return SemiStructured.example(random_weight((rows, columns), 1.0, dtype, 0))


def test_torch_compresses_to_the_same_values_and_back():
    weight = two_of_four(64, 128)
    packed = SemiStructured.from_dense(weight)
    values, meta = sparse_semi_structured_from_dense_cutlass(packed.to_dense())
    assert torch.equal(values, packed.tensors()["values"])
    assert meta.numel() * meta.element_size() == packed.tensors()["indices"].numel()
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(values, meta), weight)


def test_the_bytes_are_those_of_two_of_four():
    weight = two_of_four(32, 64)
    ours, theirs = SemiStructured.from_dense(weight), NofM.from_dense(weight, 2, 4)
    assert ours.settings == theirs.settings
    for name, tensor in theirs.tensors().items():
        assert torch.equal(ours.tensors()[name], tensor)
    x = torch.randn(3, 64).bfloat16()
    assert torch.equal(ours.matmul(x), theirs.matmul(x))


def test_only_two_of_four_is_taken():
    sparser = NofM.from_dense(torch.eye(8), 1, 8)
    with pytest.raises(LayerError, match="is 2:4, not"):
        SemiStructured.from_tensors(sparser.tensors(), sparser.shape, sparser.settings)
    with pytest.raises(LayerError, match="looked for 2:4"):
        SemiStructured.from_dense(torch.ones(8, 8))


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (two_of_four(32, 64), None),
        (two_of_four(32, 64, torch.float32), "takes bfloat16, not torch.float32"),
        (two_of_four(48, 64), "rows must be a multiple of 32"),
        (two_of_four(32, 96), "columns of 64"),
        (torch.ones(32, 64).bfloat16(), "not N:M sparse"),
    ],
)
def test_what_torch_does_not_take_is_refused(weight, reason):
    refusal = SemiStructured.refusal(weight)
    assert refusal is None if reason is None else reason in refusal


def test_the_cpu_leaves_it_to_n_of_m():
    model = torch.nn.Sequential(torch.nn.Linear(64, 32, bias=False, dtype=torch.bfloat16))
    model[0].weight.data = two_of_four(32, 64)
    choice = choose_layouts(model, (1,), ["semi-structured"], repeats=1, gain=0).layers[0]
    assert (choice.layout, choice.reason) == ("dense", "only CUDA devices multiply it")
    assert Layout.named("semi-structured") is SemiStructured
