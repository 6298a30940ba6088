import pytest
import torch
from small_models import mlp, vectors
from torch import nn

from thresher.core.errors import OptionError
from thresher.parts.scores import InputNorm, Magnitude, Random
from thresher.prune.essential_sparsity import EssentialSparsity, SparsitySweep


def one_layer():
    """Half of the weights are worth nothing, the rest 1 each."""
    model = nn.Linear(8, 5, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.0, 1.0] * 4).expand(5, 8))
    return model


def total(model):
    return float(model.weight.detach().sum())


def test_the_knee_is_where_weights_start_to_matter():
    found = EssentialSparsity().sweep(one_layer(), total)
    assert found.knee == pytest.approx(0.5)
    assert found.losses[:11] == pytest.approx([0] * 11)
    # Beyond it every weight removed costs one of twenty.
    assert found.losses[12] == pytest.approx(2 * 2 / 20)
    assert found.sharpness == pytest.approx((0.2 / 0.1) / (0.01 / 0.5))


def test_random_pruning_has_a_lower_knee():
    found = EssentialSparsity(score=Random()).sweep(one_layer(), total)
    assert found.knee < 0.2


def test_groups():
    found = EssentialSparsity(group=4).sweep(one_layer(), total)
    assert found.sparsities == (0, 0.25, 0.5, 0.75)
    assert found.knee == 0.5


def test_metrics_where_lower_is_better():
    found = EssentialSparsity().sweep(one_layer(), lambda m: 100 - total(m), lower_is_better=True)
    assert found.knee == pytest.approx(0.5)
    assert found.losses[-1] > 0


def test_the_model_is_left_as_it_was():
    model = mlp()
    before = [p.detach().clone() for p in model.parameters()]
    EssentialSparsity(score=Magnitude() * InputNorm(), sparsities=(0, 0.5)).sweep(
        model, lambda m: float(m(vectors()).detach().square().mean()), vectors()
    )

    def broken(m):
        if float((m[0].weight == 0).float().mean()) > 0.1:
            raise RuntimeError("broken metric")
        return 1.0

    with pytest.raises(RuntimeError, match="broken metric"):
        EssentialSparsity().sweep(model, broken)
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old)


def test_knees_at_the_ends_have_no_sharpness():
    never = SparsitySweep((0.0, 0.5, 0.9), (0.0, 0.0, 0.0), 0.01)
    assert (never.knee, never.sharpness) == (0.9, 0.0)
    at_once = SparsitySweep((0.0, 0.5, 0.9), (0.0, 1.0, float("nan")), 0.01)
    assert (at_once.knee, at_once.sharpness) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tolerance": 0}, "tolerance 0"),
        ({"sparsities": (0.1, 0.5)}, r"ascend from 0.*\[0\.1, 0\.5\]"),
        ({"sparsities": (0, 0.5, 1.0)}, "below 1"),
        ({"sparsities": (0, 0.5, 0.5)}, "ascend"),
        ({"group": 1}, "group 1"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(OptionError, match=words):
        EssentialSparsity(**options)


def test_a_metric_of_zero_is_named():
    with pytest.raises(OptionError, match="the metric of the dense model is 0"):
        EssentialSparsity().sweep(one_layer(), lambda m: 0.0)
