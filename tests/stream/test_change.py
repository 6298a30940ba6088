"""How far blocks turn the states of tokens."""

import math

import pytest
import torch
from torch import nn

from thresher.stream.change import AngularChange


class _Turning(nn.Module):
    """A block that turns the first two coordinates by an angle, called as blocks are."""

    def __init__(self, angle):
        super().__init__()
        c, s = math.cos(angle), math.sin(angle)
        self.matrix = torch.tensor([[c, s], [-s, c]])

    def forward(self, *, mask, hidden_states):
        return hidden_states @ self.matrix, mask


def test_the_angle_is_measured_in_half_turns():
    change, block = AngularChange(), _Turning(math.pi / 3)
    states = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
    with change.watching(block):
        found, _ = block(mask=torch.ones(2, 5), hidden_states=states)
    assert change.value == pytest.approx(1 / 3, abs=1e-5)
    torch.testing.assert_close(found, states @ block.matrix)
    assert "forward" not in block.__dict__


def test_calls_add_up_token_by_token():
    change, x = AngularChange(), torch.randn(3, 2)
    for block in (nn.Identity(), _Negate()):
        with change.watching(block):
            block(x if isinstance(block, nn.Identity) else x[:1])
    assert change.value == pytest.approx(0.25, abs=1e-3)


class _Negate(nn.Module):
    def forward(self, x):
        return x.neg_()


def test_what_comes_out_in_another_shape_is_not_known():
    change, layer = AngularChange(), nn.Linear(2, 4)
    with change.watching(layer):
        layer(torch.randn(3, 2))
    assert math.isnan(change.value)
