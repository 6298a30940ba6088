"""A layout in a user's own file: products by conversion, packing and the contract."""

from __future__ import annotations

import pytest
import torch
from layout_contract import check_product, check_round_trips, one_thread, random_weight  # noqa: F401
from torch import nn

from thresher.core.errors import LayerError, OptionError
from thresher.run.layouts.base import Layout
from thresher.run.pack import choose_layouts


def _forget(layout):
    """Take a class off the list of layouts, on which it is for as long as it lives."""
    del layout.name


@pytest.fixture
def coordinates():
    class Coordinates(Layout):
        """Row, column and value of every survivor: all that a new layout has to say."""

        name = "coordinates"

        def __init__(self, places, values, shape):
            super().__init__(shape, values.dtype)
            self.places, self.values = places, values

        @classmethod
        def from_dense(cls, weight):
            places = weight.nonzero()
            return cls(places, weight[places[:, 0], places[:, 1]], tuple(weight.shape))

        def to_dense(self):
            dense = torch.zeros(self.shape, dtype=self.dtype)
            dense[self.places[:, 0], self.places[:, 1]] = self.values
            return dense

        def tensors(self):
            return {"places": self.places, "values": self.values}

        @classmethod
        def from_tensors(cls, tensors, shape, settings):
            if len(tensors["places"]) != len(tensors["values"]):
                raise LayerError("tensor 'places' and tensor 'values' differ in length")
            return cls(tensors["places"], tensors["values"], shape)

    yield Coordinates
    _forget(Coordinates)


def test_contract_and_gradient_come_by_conversion(coordinates):
    packed = check_round_trips(coordinates, random_weight((9, 14), 0.3, torch.float32, 0))
    x = torch.randn(4, 14, requires_grad=True)
    check_product(packed, x.detach(), torch.randn(9))
    packed.matmul(x).sum().backward()
    torch.testing.assert_close(x.grad, packed.to_dense().sum(0).expand(4, 14))


def test_pack_tries_it(coordinates):
    assert Layout.known()["coordinates"] is coordinates
    model = nn.Sequential(nn.Linear(32, 32))
    model[0].weight.data *= torch.rand(32, 32) < 0.1
    choice = choose_layouts(model, (1,), ["coordinates"], repeats=1, gain=0.0).layers[0]
    assert choice.layout == "coordinates"
    assert set(choice.seconds) == {"dense", "coordinates"}


def test_two_layouts_of_one_name_are_refused(coordinates):
    other = type("Other", (Layout,), {"name": "coordinates"})
    with pytest.raises(OptionError, match=r"two layouts are named 'coordinates': .*Other"):
        Layout.known()
    _forget(other)
    assert Layout.known()["coordinates"] is coordinates


def test_a_class_defined_again_takes_the_place_of_the_first(coordinates):
    body = dict(coordinates.__dict__) | {"__qualname__": coordinates.__qualname__}
    again = type(coordinates)(coordinates.__name__, (Layout,), body)
    assert Layout.known()["coordinates"] is again
    _forget(again)
