"""What blocks, groups and bytes hold outside the matrix is zero, or the weight is refused."""

from __future__ import annotations

import pytest
import torch

from thresher.core.errors import CheckpointError, LayerError
from thresher.run.layouts import formats
from thresher.run.layouts.base import Layout

ONES = torch.ones(16, 64)


def edges():
    """Yield, by name, a whole layout and a buffer in which an entry outside can be set."""
    yield "blocks below", Layout.named("blocks").from_dense(ONES[:13]), "values", (-1, 15, 0)
    yield "blocks beside", Layout.named("blocks").from_dense(ONES[:, :40]), "values", (-1, 0, 20)
    yield "int8 below", Layout.named("int8-4x1").from_dense(ONES[:6]), "values", (-1, 3, 0)
    yield "int8 beside", Layout.named("int8-4x1").from_dense(ONES[:4, :6]), "values", (-1, 0, 3)
    kind = Layout.named("group-sparse-4bit")
    yield "4 bits beside", kind.from_dense(ONES[:1, :20]), "codes", (-1, 7)
    rows = Layout.named("row-groups").from_dense(ONES[:3], 2)
    yield "row-groups below", rows, "values", (-1, 1)


@pytest.mark.parametrize(("packed", "buffer", "at"), [e[1:] for e in edges()], ids=lambda e: str(e))
@pytest.mark.parametrize("bad", [1.0, float("inf"), float("nan")])
def test_weights_outside_the_matrix_are_refused(packed, buffer, at, bad):
    tensors = {name: tensor.clone() for name, tensor in packed.tensors().items()}
    type(packed).from_tensors(tensors, packed.shape, packed.settings)
    if tensors[buffer].is_floating_point():
        tensors[buffer][at] = bad
    else:
        tensors[buffer][at] ^= 1
    with pytest.raises(LayerError, match=f"tensor '{buffer}'.*outside the matrix"):
        type(packed).from_tensors(tensors, packed.shape, packed.settings)


def test_a_pattern_of_rows_past_the_last_one_holds_nothing():
    kind, settings = Layout.named("n:m:g"), {"n": 1, "m": 4, "chunk": 4}
    tensors = {
        "counts": torch.tensor([[[0, 0, 0, 4]]]).to(torch.uint16),
        "indices": torch.arange(4)[None].to(torch.uint8),
        "values": torch.zeros(1, 4, 1),
    }
    assert not kind.from_tensors(tensors, (3, 4), settings).to_dense().any()
    tensors["values"][0, 2] = 1
    assert kind.from_tensors(tensors, (4, 4), settings).to_dense()[3, 2] == 1
    with pytest.raises(LayerError, match="outside the matrix"):
        kind.from_tensors(tensors, (3, 4), settings)


def test_padding_is_zero():
    weight = torch.tensor([[0.0, 5.0, 0.0, 6.0, 7.0, 8.0, 0.0, 0.0, 0.0, 1.0]])
    for group, name in ((None, "_bitmask"), (5, "_indices")):
        parts = formats.pack(weight, weight != 0, group)
        if name not in parts:
            parts = {"_shape": torch.tensor([1, 10])} | {
                f"_{key}": tensor
                for key, tensor in formats.position_parts(weight, weight != 0, 3, 5).items()
            }
        formats.unpack(parts, "w", group)
        parts[name] = parts[name].clone()
        parts[name][0, -1] |= 128
        with pytest.raises(CheckpointError, match=r"'w'.*(past the last|after the last)"):
            formats.unpack(parts, "w", group)
