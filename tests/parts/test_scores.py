import pytest
import torch
from part_examples import SCORES, correlated_inputs, full_statistics, instances

from thresher.core.errors import OptionError
from thresher.parts import moments, scores
from thresher.parts.statistics import Statistics

ALL = pytest.mark.parametrize("score", instances(scores.Score, SCORES), ids=repr)
SHAPES = pytest.mark.parametrize("groups", [None, 3])


def example(groups, rows=6, columns=12, seed=0):
    batch = () if groups is None else (groups,)
    weight = torch.randn(*batch, rows, columns, generator=torch.Generator().manual_seed(seed))
    return weight, full_statistics(correlated_inputs(64, columns, seed, groups), weight)


@ALL
@SHAPES
def test_scores_have_the_weights_shape_and_are_not_negative(score, groups):
    weight, statistics = example(groups)
    untouched = weight.clone()
    values = score(weight, statistics)
    assert values.shape == weight.shape
    assert bool((values >= 0).all())
    assert torch.equal(weight, untouched)


@ALL
@SHAPES
def test_scores_are_deterministic(score, groups):
    first, second = (score(*example(groups)) for _ in range(2))
    assert torch.equal(first, second)


@ALL
@SHAPES
def test_column_views_agree_with_the_whole(score, groups):
    if not score.by_columns:
        pytest.skip("it needs all columns at once")
    weight, statistics = example(groups)
    whole = score(weight, statistics)
    for start, stop in [(0, 5), (5, 12), (3, 4)]:
        view = statistics.columns(slice(start, stop))
        part = score(weight[..., start:stop], view)
        torch.testing.assert_close(part, whole[..., start:stop])


@ALL
def test_needs_are_enough(score):
    weight, everything = example(None)
    inputs = correlated_inputs(64, 12)
    statistics = Statistics("layer", score.needs)
    statistics.update(inputs)
    if moments.backward(score.needs) or moments.perturbed(score.needs):
        statistics.adopt_gradients(everything)
    torch.testing.assert_close(score(weight, statistics), score(weight, everything))


def test_arithmetic():
    weight, statistics = example(None)
    a, b = scores.Magnitude(), scores.InputNorm()
    x, y = a(weight, statistics), b(weight, statistics)
    for made, expected in [
        (a * b, x * y),
        (a + b, x + y),
        (a * 3, 3 * x),
        (3 * a, 3 * x),
        (a**2, x * x),
        (a * b + 2 * a, x * y + 2 * x),
    ]:
        torch.testing.assert_close(made(weight, statistics), expected)
        assert made.needs <= {moments.Norm}
    assert (a * b).needs == {moments.Norm}


def test_formulas():
    weight, statistics = example(None)
    inputs = correlated_inputs(64, 12)
    wanda = weight.abs() * inputs.square().mean(0).sqrt()
    found = (scores.Magnitude() * scores.InputNorm())(weight, statistics)
    torch.testing.assert_close(found, wanda)
    taylor = (weight * statistics[moments.Gradient].value).abs()
    found = (scores.Magnitude() * scores.GradientMagnitude())(weight, statistics)
    torch.testing.assert_close(found, taylor)
    fisher = 0.5 * weight**2 * statistics[moments.SquaredGradient].value
    torch.testing.assert_close(scores.Fisher()(weight, statistics), fisher)


def test_relative_importance_is_what_the_paper_says():
    weight = torch.tensor([[1.0, -2.0, 0.0], [3.0, 2.0, 0.0]])
    # 1 / 4 + 1 / 3, 2 / 4 + 2 / 3; 3 / 4 + 3 / 5, 2 / 4 + 2 / 5; of an empty column nothing.
    expected = torch.tensor([[7 / 12, 7 / 6, 0.0], [27 / 20, 9 / 10, 0.0]])
    found = scores.RelativeImportance()(weight, Statistics("layer"))
    torch.testing.assert_close(found, expected)
    assert not scores.RelativeImportance()(torch.zeros(2, 3), Statistics("layer")).any()


def test_what_needs_all_columns_does_so_in_combinations_too():
    whole, each = scores.RelativeImportance(), scores.Magnitude()
    assert not any(s.by_columns for s in (whole * each, each + whole, 2 * whole, whole**2))
    assert (each * each).by_columns


def test_obs_saliency_is_the_loss_of_removing_the_first_column():
    # Of the first column nothing to the left is fixed: w^2 / [H^-1]_00 in full (OBS eq. 5).
    weight, statistics = example(None)
    hessian = statistics[moments.Gram].value.double()
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    expected = weight[:, 0].double() ** 2 / torch.linalg.inv(hessian)[0, 0]
    found = scores.OBSSaliency()(weight, statistics)[:, 0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_samples_are_drawn_in_proportion_to_a_score():
    weight = torch.tensor([[3.0, 0.0, -2.0, 1.0]])
    factors = [scores.SamplingFactor(seed) for seed in range(3000)]
    drawn = torch.stack([(scores.Magnitude() * f)(weight, Statistics("a"))[0] for f in factors])
    order = drawn.argsort(-1, descending=True)
    first = order[:, 0].bincount(minlength=4) / len(factors)
    torch.testing.assert_close(first, torch.tensor([0.5, 0, 1 / 3, 1 / 6]), rtol=0, atol=0.03)
    # Once the first is drawn, the others are in proportion among themselves.
    second = order[order[:, 0] == 0, 1].bincount(minlength=4) / (order[:, 0] == 0).sum()
    torch.testing.assert_close(second, torch.tensor([0, 0, 2 / 3, 1 / 3]), rtol=0, atol=0.04)


def test_random_scores_differ_by_seed_and_layer():
    weight = torch.zeros(4, 8)
    drawn = {
        tuple(kind(seed)(weight, Statistics(name)).flatten().tolist())
        for kind in (scores.Random, scores.SamplingFactor)
        for seed in (0, 1)
        for name in ("a", "b")
    }
    assert len(drawn) == 8


def test_what_was_not_collected_is_named():
    with pytest.raises(OptionError, match=r"'Norm'.*'layer'.*was not collected"):
        scores.InputNorm()(torch.ones(2, 2), Statistics("layer"))
