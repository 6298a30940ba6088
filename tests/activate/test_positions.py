"""Positions of feature maps: chosen by hand, trained, and computed alone."""

import pytest
import torch
from small_models import cnn, images, llama, tokens
from torch import nn

from thresher.activate.partial_conv import PartialConv2d
from thresher.activate.semi_structured import SemiStructuredActivations
from thresher.core.errors import LayerError, OptionError
from thresher.parts.activations.attached import attached, counting
from thresher.parts.activations.positions import Positions


def network(**options):
    torch.manual_seed(0)
    first = nn.Conv2d(3, 6, 3, padding=1, **options)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(6, 4, (3, 1), stride=2, bias=False))


def settled(model, sparsity, data, **options):
    maps = SemiStructuredActivations(sparsity, settled=1.0).attach(model, data[:1], **options)
    with maps.watched(), torch.no_grad():
        model(data)
    maps.step(1.0)
    return maps


def test_the_largest_positions_are_kept_by_hand():
    model, data = network(), images()
    with torch.no_grad():
        outputs = model[0](data)
    maps = settled(model, 0.75, data)
    size = outputs.abs().sum(dim=(0, 1)).flatten()
    expected = torch.zeros(256, dtype=torch.bool)
    expected[size.argsort(descending=True)[:64]] = True
    assert torch.equal(maps.masks["0"].flatten(), expected)
    with torch.no_grad():
        assert torch.equal(model[0](data), outputs * expected.reshape(16, 16))
    assert maps.density == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    "options", [{}, {"dilation": 2, "stride": 2, "bias": False}, {"groups": 3}]
)
def test_computed_alone_they_are_what_the_mask_gives(options):
    model, data = network(**options), images()
    maps = settled(model, 0.4, data)
    with torch.no_grad():
        expected = model(data)
        maps.compact()
        torch.testing.assert_close(model(data), expected)
    assert [type(model[i]) for i in (0, 2)] == [PartialConv2d] * 2
    assert not attached(model)
    with pytest.raises(LayerError, match=r"images of \(16, 16\), not \(8, 8\)"):
        model(data[..., :8, :8])


def test_without_sparsity_nothing_changes_and_counts_are_right():
    model, data = network(), images()
    with torch.no_grad():
        expected = model(data)
        settled(model, 0.0, data)
        assert torch.equal(model(data), expected)
    maps = settled(network(), 0.25, data)
    with counting() as tallies, torch.no_grad():
        maps.model(data)
    assert tallies["0.sparse_outputs"].sparsity == pytest.approx(0.25)


def test_positions_become_fewer_and_then_stay_while_it_trains():
    model, data = network(), images()
    maps = SemiStructuredActivations(0.5, settled=0.6).attach(model, data[:1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    shares, masks = [], []
    with maps.watched():
        for epoch in range(10):
            optimizer.zero_grad()
            model(data).square().mean().backward()
            optimizer.step()
            maps.step((epoch + 1) / 10)
            shares.append(maps.density)
            masks.append(maps.masks["0"].clone())
    assert shares[0] < 1
    assert shares == sorted(shares, reverse=True)
    assert shares[5] == shares[-1] == pytest.approx(0.5, abs=0.01)
    assert torch.equal(masks[5], masks[-1])


def test_gradients_are_those_of_what_is_computed():
    model, data = network(), images()
    settled(model, 0.5, data)
    other = network()
    mask = model[0].sparse_outputs.kept
    model[0](data).square().sum().backward()
    (other[0](data) * mask).square().sum().backward()
    torch.testing.assert_close(model[0].weight.grad, other[0].weight.grad)


def test_mistakes_are_named():
    with pytest.raises(OptionError, match="share of positions left out"):
        SemiStructuredActivations(1.0)
    with pytest.raises(OptionError, match="settled"):
        SemiStructuredActivations(settled=0)
    with pytest.raises(LayerError, match=r"calls no convolution of images.*'teal'"):
        SemiStructuredActivations().attach(llama(), tokens(1))
    model, data = cnn(), images()
    maps = settled(model, 0.5, data)  # depthwise ones have inputs enough to stay
    with pytest.raises(LayerError, match="take the dense model"):
        SemiStructuredActivations().attach(model, data[:1])
    with pytest.raises(OptionError, match="progress"):
        maps.step(1.5)
    with pytest.raises(LayerError, match=r"chosen for outputs of \(8, 8\)"):
        model(torch.randn(1, 3, 32, 32))
    odd = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
    with pytest.raises(LayerError, match="only 'zeros'"):
        PartialConv2d(odd, torch.ones(8, 8, dtype=torch.bool), (8, 8))
    with pytest.raises(LayerError, match="36 positions"):
        PartialConv2d(nn.Conv2d(4, 4, 3), torch.ones(5, 5, dtype=torch.bool), (8, 8))
    assert Positions(torch.ones(2, 2, dtype=torch.bool)).settings == {}
