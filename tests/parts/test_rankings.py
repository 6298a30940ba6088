"""What units cost, against the definition, and how many of them go."""

import math

import numpy as np
import pytest
import torch
from part_examples import concrete_subclasses

from thresher.core.errors import OptionError
from thresher.parts.chooser import MaskChooser
from thresher.parts.moments import Gram
from thresher.parts.patterns import Unstructured
from thresher.parts.rankings import AllByScore, ByScore, GreedyOBS
from thresher.parts.scores import InputVariance, Magnitude, Score
from thresher.parts.spreads import ByChange, Incremental, PerKind, Ranked, Spread, WholeModel
from thresher.parts.statistics import Statistics
from thresher.parts.updates import LeastSquares

ROWS, COLUMNS = 5, 8


def problem(seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(ROWS, COLUMNS, generator=generator)
    mixing = torch.randn(COLUMNS, COLUMNS, generator=generator)
    inputs = torch.randn(400, COLUMNS, generator=generator) @ mixing + 0.3
    statistics = Statistics("layer", {Gram, *InputVariance.needs})
    statistics.update(inputs)
    return weight, inputs, statistics


def pairs():
    """Columns 0 and 1 are unit 0, and so on; the last two belong to none."""
    units = torch.tensor([0, 0, 1, 1, 2, 2, -1, -1])
    return units.expand(ROWS, COLUMNS)


def refitted_error(weight, inputs, gone):
    left = [j for j in range(COLUMNS) if j not in gone]
    target = inputs @ weight.T
    solution = torch.linalg.lstsq(inputs[:, left].double(), target.double()).solution
    return float((inputs[:, left].double() @ solution - target).square().sum() / len(inputs))


def test_the_cheapest_unit_costs_what_a_refit_without_it_loses():
    weight, inputs, statistics = problem()
    errors = [refitted_error(weight, inputs, {2 * u, 2 * u + 1}) for u in range(3)]
    costs = GreedyOBS(damping=1e-7, rounds=1)(weight, pairs(), 3, statistics)
    np.testing.assert_allclose(costs.numpy(), errors, rtol=1e-3)


def test_the_groups_of_a_convolution_cost_what_each_costs_alone():
    problems = [problem(seed) for seed in (0, 1)]
    statistics = Statistics("layer", {Gram})
    statistics.update(torch.stack([inputs for _, inputs, _ in problems]))
    weight = torch.stack([each for each, _, _ in problems])
    # The second group has units of its own, and shares unit 2 with the first.
    second = torch.tensor([3, 3, 4, 4, 2, 2, -1, -1]).expand(ROWS, COLUMNS)
    costs = GreedyOBS(damping=1e-7)(weight, torch.stack([pairs(), second]), 5, statistics)
    alone = [GreedyOBS(damping=1e-7)(w, pairs(), 3, known) for w, _, known in problems]
    expected = [alone[0][0], alone[0][1], alone[0][2] + alone[1][2], alone[1][0], alone[1][1]]
    np.testing.assert_allclose(costs.numpy(), torch.stack(expected).numpy(), rtol=1e-3)


def test_later_rounds_know_what_is_gone_already():
    weight, inputs, statistics = problem(1)
    costs = GreedyOBS(damping=1e-7)(weight, pairs(), 3, statistics)
    order = costs.argsort().tolist()
    first = {2 * order[0], 2 * order[0] + 1}
    alone = refitted_error(weight, inputs, first)
    both = refitted_error(weight, inputs, first | {2 * order[1], 2 * order[1] + 1})
    assert float(costs[order[0]]) == pytest.approx(alone, rel=1e-3)
    assert float(costs[order[1]]) == pytest.approx(max(alone, both - alone), rel=1e-3)


def test_scores_are_added_up_over_a_unit():
    weight, inputs, statistics = problem()
    costs = ByScore(InputVariance() * Magnitude() ** 2)(weight, pairs(), 3, statistics)
    variance = inputs.var(0, correction=0)
    expected = (weight.square() * variance).sum(0)[:6].reshape(3, 2).sum(1)
    torch.testing.assert_close(costs.float(), expected, rtol=1e-4, atol=0)
    assert AllByScore().of_all
    assert not ByScore().of_all


class _Chosen(Score):
    """Keep columns 0, 2 and 5 of every row; of the last row others, where it is told to."""

    def __init__(self, other):
        self.other = other

    def __call__(self, weight, statistics):
        score = torch.zeros_like(weight)
        score[:, [0, 2, 5]] = 1
        if self.other:
            score[-1] = score[-1].roll(1)
        return score


def test_rows_that_share_their_support_are_solved_as_others_are():
    weight, _, statistics = problem()
    found = {}
    for other in (False, True):
        choose = MaskChooser(_Chosen(other), Unstructured(), 3 * ROWS, statistics, (ROWS, COLUMNS))
        found[other], mask = LeastSquares()(weight, choose, statistics)
        assert int(mask.sum()) == 3 * ROWS
    torch.testing.assert_close(found[False][:-1], found[True][:-1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[False][-1], found[True][-1], atol=1e-3)


def spread_over(spread, target, *, step=1):
    """Spread over two kinds of two groups with 10 weights a unit; return how many units go."""
    rise = np.arange(1.0, 129)
    groups = [
        Ranked("a0", rise, "a", step, 0.0, 0.3),
        Ranked("b0", 3 * rise, "b", step, 0.0, 0.3),
        Ranked("a1", rise, "a", step, 1.0, 0.1),
        Ranked("b1", 3 * rise, "b", step, 1.0, 0.1),
    ]

    def weights(removed):
        return 10 * (4 * 128 - sum(map(len, removed.values())))

    removed = spread(groups, weights, target * weights({}))
    return {name: len(units) for name, units in removed.items()}, weights(removed) / weights({})


def test_groups_of_a_kind_lose_the_same_and_the_cheap_kind_more():
    counts, left = spread_over(PerKind(multiple=8), 0.7)
    assert counts["a0"] == counts["a1"] > counts["b0"] == counts["b1"] > 0
    assert all(count % 8 == 0 for count in counts.values())
    assert left == pytest.approx(0.7, abs=8 / 512)


def test_costs_are_compared_within_their_group():
    counts, left = spread_over(WholeModel(), 0.5)
    assert set(counts.values()) == {64}
    assert left == 0.5
    counts, _ = spread_over(WholeModel("deviation"), 0.25)
    assert set(counts.values()) == {96}


def test_what_is_left_of_wide_groups_is_a_multiple():
    counts, left = spread_over(WholeModel(multiple=24), 0.55)
    assert {128 - count for count in counts.values()} == {72}
    assert left == 72 / 128
    # With less than twice as many units there is little to choose from.
    counts, _ = spread_over(WholeModel(multiple=65), 0.55)
    assert {128 - count for count in counts.values()} <= {70, 71}


def test_later_blocks_lose_more():
    counts, left = spread_over(Incremental(first=0.5), 0.7)
    assert counts["a1"] == counts["b1"] == pytest.approx(2 * counts["a0"], abs=1)
    assert left == pytest.approx(0.7, abs=0.01)


def test_blocks_that_change_less_lose_more():
    counts, left = spread_over(ByChange(steepness=math.log(2)), 0.7)
    # Of two blocks the changes are one deviation above and below their mean.
    assert counts["a1"] == counts["b1"] == pytest.approx(2 * counts["a0"], abs=1)
    assert left == pytest.approx(0.7, abs=0.01)
    flat, _ = spread_over(ByChange(steepness=0.0), 0.7)
    assert len(set(flat.values())) == 1


def test_blocks_of_unknown_change_lose_what_one_of_mean_change_does():
    rise = np.arange(1.0, 129)
    groups = [
        Ranked(str(i), rise, None, 1, i / 3, change)
        for i, change in enumerate([0.1, 0.2, 0.3, math.nan])
    ]
    shares = ByChange().shares(groups)
    assert shares[1.0] == 0.5
    assert shares[1 / 3] == pytest.approx(0.5)
    assert shares[0.0] > 0.5 > shares[2 / 3]


@pytest.mark.parametrize(
    "bad",
    [lambda: Incremental(first=0), lambda: ByChange(steepness=-1), lambda: WholeModel(multiple=0)],
)
def test_spreads_name_options_out_of_range(bad):
    with pytest.raises(OptionError, match="out of range"):
        bad()


def test_every_spread_has_its_tests():
    assert {type(spread) for spread in SPREADS} == set(concrete_subclasses(Spread))


SPREADS = [PerKind(multiple=8), WholeModel(), Incremental(), ByChange()]


@pytest.mark.parametrize("spread", SPREADS)
def test_units_go_some_at_a_time(spread):
    counts, _ = spread_over(spread, 0.7, step=16)
    assert all(count % 16 == 0 for count in counts.values())


@pytest.mark.parametrize("spread", [PerKind(), WholeModel(), Incremental(), ByChange()])
def test_what_cannot_be_reached_says_the_nearest(spread):
    with pytest.raises(
        OptionError, match=r"density 0\.01 cannot .* nearest density is 0\.\d+"
    ) as e:
        spread_over(spread, 0.01)
    nearest = float(str(e.value).split()[-1])
    assert math.isclose(spread_over(spread, nearest + 0.001)[1], nearest, abs_tol=0.02)
