"""The compiled classes refuse sizes that cannot be, whoever builds them, before any arithmetic."""

from __future__ import annotations

import pytest
import torch

from thresher.core.errors import LayerError
from thresher.run import _run
from thresher.run.layouts.base import Layout
from thresher.run.layouts.buffers import MOST_ENTRIES, MOST_UNHELD, Outline, integers

VALUES, BYTES = torch.zeros(0), torch.zeros(0, dtype=torch.uint8)
SHORTS, ONE = torch.zeros(0, dtype=torch.uint16), torch.zeros(1, dtype=torch.int64)
CODES = torch.zeros(0, dtype=torch.int8)
#: Every class on buffers without entries, for a number of rows and columns.
CLASSES = {
    "Bitmask": lambda *shape: _run.Bitmask(BYTES, VALUES, *shape),
    "NofM": lambda *shape: _run.NofM(BYTES, VALUES, *shape, 2, 4),
    "Csr": lambda *shape: _run.Csr(ONE, SHORTS, VALUES, *shape),
    "FanIn": lambda *shape: _run.FanIn(SHORTS, VALUES, *shape, 0),
    "Blocks": lambda *shape: _run.Blocks(ONE, SHORTS, VALUES, *shape),
    "Quantized": lambda *shape: _run.Quantized(ONE, SHORTS, BYTES, VALUES, BYTES, *shape),
    "Int8Blocks": lambda *shape: _run.Int8Blocks(ONE, SHORTS, CODES, VALUES, *shape),
    "GroupedNM": lambda *shape: _run.GroupedNM(SHORTS, BYTES, VALUES, *shape, 2, 4, 256),
    "RowGroups": lambda *shape: _run.RowGroups(ONE, SHORTS, VALUES, SHORTS, *shape, 4),
}
IMPOSSIBLE = [
    (2**62, 32),
    (2**63 - 1, 1),
    (2**63 - 1, 2**63 - 1),
    (2**32, 2**32),
    (-1, 4),
    (4, -1),
    (-(2**63), -(2**63)),
    (2**40, 0),
    (0, 2**40),
    (MOST_ENTRIES, 2),
]


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize("shape", IMPOSSIBLE)
def test_sizes_that_no_matrix_has_are_refused(name, shape):
    with pytest.raises(ValueError, match="which no matrix has"):
        CLASSES[name](*shape)


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"FanIn"}))
@pytest.mark.parametrize("shape", [(2**33, 64), (2**30, 2**20), (5, 8)])
def test_rows_that_no_buffer_holds_are_refused(name, shape):
    with pytest.raises(ValueError, match="tensor '"):
        CLASSES[name](*shape)


def test_rows_of_nothing_are_not_gone_through():
    """Constant fan-in of none: no buffer is as long as the rows, and none is made."""
    _run.FanIn(SHORTS, VALUES, 2**40, 64, 0)


@pytest.mark.parametrize("group", [0, -1, 2**62, 2**63 - 1])
def test_groups_without_bounds_are_refused(group):
    with pytest.raises(ValueError, match="groups of"):
        _run.RowGroups(ONE, SHORTS, VALUES, SHORTS, 0, 0, group)


def test_padding_after_the_last_position_is_zero():
    indices = torch.tensor([[0b0100]], dtype=torch.uint8)
    _run.NofM(indices, torch.ones(1, 2), 1, 4, 2, 4)
    indices[0, 0] |= 0b10000
    with pytest.raises(ValueError, match="goes on after the last position in row 0"):
        _run.NofM(indices, torch.ones(1, 2), 1, 4, 2, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": -1}, "no usable number"),
        ({"n": 2**31}, "no usable number"),
        ({"n": True}, "no usable number"),
        ({"n": 2.0}, "no usable number"),
        ({"n": "2"}, "no usable number"),
        ({}, "'n' of a packed layer is missing"),
        ({"n": 2, "more": 1}, "'more' of a packed layer is not known"),
    ],
)
def test_settings_are_the_integers_that_the_layout_has(settings, message):
    with pytest.raises(LayerError, match=message):
        integers(settings, "n")
    assert integers({"n": 2}, "n") == (2,)


def test_a_fan_in_of_more_than_all_columns_is_refused_by_the_header():
    found = {"indices": Outline((5, 4), torch.uint16), "values": Outline((5, 4), torch.float32)}
    Layout.named("fan-in").check(found, (5, 4), {"fan_in": 4})
    with pytest.raises(LayerError, match="fan-in of 4 is more than 3 columns"):
        Layout.named("fan-in").check(found, (5, 3), {"fan_in": 4})


@pytest.mark.parametrize("name", sorted(Layout.known()))
@pytest.mark.parametrize("shape", IMPOSSIBLE)
def test_every_layout_refuses_impossible_sizes_before_it_is_bound(name, shape):
    layout = Layout.named(name)
    packed = layout.from_dense(layout.example(torch.eye(32, 64)))
    found = {key: Outline(tuple(t.shape), t.dtype) for key, t in packed.tensors().items()}
    layout.check(found, packed.shape, packed.settings)
    with pytest.raises(LayerError, match="is not possible"):
        layout.check(found, shape, packed.settings)


@pytest.mark.parametrize("name", sorted(Layout.known()))
def test_every_layout_says_what_its_buffers_look_like(name):
    layout = Layout.named(name)
    for dtype in (torch.float32, torch.bfloat16):
        packed = layout.from_dense(layout.example(torch.eye(32, 64).to(dtype)))
        expected = layout.expected(packed.shape, packed.settings)
        assert expected.keys() == packed.tensors().keys()
        for key, tensor in packed.tensors().items():
            wrong = packed.tensors() | {key: tensor[None]}
            with pytest.raises(LayerError, match=f"tensor '{key}'.*has shape"):
                layout.from_tensors(wrong, packed.shape, packed.settings)
        with pytest.raises(LayerError, match="tensor 'more'"):
            layout.from_tensors(
                packed.tensors() | {"more": torch.ones(1)}, packed.shape, packed.settings
            )
    assert MOST_UNHELD < MOST_ENTRIES
