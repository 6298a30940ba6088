import pytest
import torch
from part_examples import correlated_inputs

from thresher.core.errors import DataError, NumericalError, OptionError
from thresher.parts.statistics import SAMPLE_ROWS, Statistics

ALL = {"norm", "gram", "gradient", "squared_gradient"}


@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("columns", [1, 5, 16])
def test_moments_are_those_of_the_data(groups, columns):
    inputs = correlated_inputs(200, columns, groups=groups)
    statistics = Statistics("layer", ALL)
    statistics.update(inputs)
    exact = inputs.double()
    torch.testing.assert_close(statistics.norm, exact.square().mean(-2).sqrt().float())
    torch.testing.assert_close(statistics.mean, exact.mean(-2).float())
    torch.testing.assert_close(
        statistics.variance, exact.var(-2, correction=0).float(), rtol=1e-4, atol=1e-6
    )
    gram = (exact.mT @ exact / 200).float()
    torch.testing.assert_close(statistics.gram, gram, rtol=1e-4, atol=1e-5)
    assert statistics.tokens == 200


def test_streaming_equals_one_batch():
    inputs = correlated_inputs(300, 8)
    whole, parts = Statistics("a", ALL), Statistics("b", ALL)
    whole.update(inputs)
    for part in inputs.split([1, 100, 50, 149]):
        parts.update(part)
    for what in ("norm", "mean", "variance", "gram"):
        torch.testing.assert_close(getattr(parts, what), getattr(whole, what), rtol=1e-4, atol=1e-5)


def test_gradient_moments():
    gradients = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    statistics = Statistics("layer", ALL)
    for gradient in gradients:
        statistics.update_gradient(gradient)
    torch.testing.assert_close(statistics.gradient, gradients.mean(0))
    torch.testing.assert_close(statistics.squared_gradient, gradients.square().mean(0))


def test_a_constant_input_has_no_variance():
    statistics = Statistics("layer", {"norm"})
    statistics.update(torch.full((1000, 2), 1e4))
    assert bool((statistics.variance == 0).all())


def test_views_and_new_names():
    inputs = correlated_inputs(50, 8)
    statistics = Statistics("layer", ALL)
    statistics.update(inputs)
    view = statistics.columns(slice(2, 8)).columns(slice(1, 4))
    assert view.start == 3
    torch.testing.assert_close(view.norm, statistics.norm[3:6])
    torch.testing.assert_close(view.gram, statistics.gram[3:6, 3:6])
    assert statistics.renamed("other").name == "other"


def test_memory_does_not_grow_with_tokens():
    statistics = Statistics("layer", {"norm"})
    for _ in range(100):
        statistics.update(torch.randn(64, 4))
    assert statistics.sample.shape == (SAMPLE_ROWS, 4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_activations_name_the_layer(bad):
    inputs = torch.ones(4, 3)
    inputs[1, 2] = bad
    with pytest.raises(NumericalError, match=r"'model\.up_proj' received NaN or infinite"):
        Statistics("model.up_proj", {"norm"}).update(inputs)


def test_bad_gradients_name_the_layer():
    with pytest.raises(NumericalError, match=r"'model\.up_proj'"):
        Statistics("model.up_proj", {"gradient"}).update_gradient(torch.tensor([[torch.nan]]))


def test_misuse_is_named():
    with pytest.raises(OptionError, match="unknown statistic 'kurtosis'"):
        Statistics("layer", {"kurtosis"})
    empty = Statistics("layer", {"norm"})
    empty.update(torch.ones(0, 3))
    with pytest.raises(DataError, match="'layer' was given no calibration tokens"):
        _ = empty.norm
    read = Statistics("layer", {"gram"})
    read.update(torch.ones(4, 3))
    _ = read.gram
    with pytest.raises(OptionError, match="already read"):
        read.update(torch.ones(4, 3))
