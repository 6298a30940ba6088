import pytest
import torch

from thresher.core.errors import DataError, NumericalError, OptionError
from thresher.parts.moments import Gradient, Gram, Norm, SquaredGradient
from thresher.parts.statistics import Statistics


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e19])
@pytest.mark.parametrize("needs", [set(), {Norm}, {Gram}])
def test_bad_activations_name_the_layer(bad, needs):
    inputs = torch.ones(4, 3)
    inputs[1, 2] = bad
    with pytest.raises(NumericalError, match=r"'model\.up_proj' received NaN or infinite"):
        Statistics("model.up_proj", needs).update(inputs)


def test_large_activations_are_taken():
    statistics = Statistics("layer", {Norm})
    statistics.update(torch.full((100, 2), -1e17))
    torch.testing.assert_close(statistics[Norm].value, torch.full((2,), 1e17))


def test_bad_gradients_name_the_layer():
    with pytest.raises(NumericalError, match=r"'model\.up_proj'"):
        Statistics("model.up_proj", {Gradient}).update_gradient(torch.tensor([[torch.nan]]))


def test_names_of_moments_are_refused():
    with pytest.raises(OptionError, match="'kurtosis' is no moment; name a class"):
        Statistics("layer", {"kurtosis"})


def test_what_was_not_collected_is_named():
    statistics = Statistics("layer", {Norm, Gradient})
    with pytest.raises(OptionError, match=r"moment 'Gram' of layer 'layer' was not collected"):
        statistics[Gram]
    statistics.update(torch.ones(0, 3))
    with pytest.raises(DataError, match="'layer' was given no calibration tokens"):
        statistics[Norm]
    with pytest.raises(DataError, match="'layer' was given no gradients"):
        statistics[Gradient]


def test_a_new_name_shares_the_moments_of_inputs_alone():
    leader = Statistics("leader", {Norm, SquaredGradient})
    leader.update(torch.ones(4, 3))
    follower = leader.renamed("follower")
    gradients = Statistics("follower", {SquaredGradient})
    gradients.update_gradient(torch.full((2, 3), 3.0))
    follower.adopt_gradients(gradients)
    assert follower.name == "follower"
    assert follower[Norm] is leader[Norm]
    assert float(follower[SquaredGradient].value.mean()) == 9
    with pytest.raises(DataError, match="'leader' was given no gradients"):
        leader[SquaredGradient]


def test_rows_are_kept_for_measuring_errors():
    statistics = Statistics("layer")
    assert statistics.sample is None
    statistics.update(torch.arange(40.0).reshape(20, 2))
    # Sixteen of twenty rows, evenly spaced from the first.
    assert torch.equal(statistics.sample, torch.arange(32.0).reshape(16, 2))
