"""Scoring systems: against all systems counted one by one, in any units, under every limit."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import DataError, OptionError
from thresher.linear import ScoringSystem
from thresher.linear.interpret.scoring_program import Limits, Patterns, Program


@parametrize_with_checks([ScoringSystem(node_limit=1)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, (120, 6)).astype(float)
    return X, X @ [2, -1, 0, 0, 1, 0] - 1 > 0, rng


def noisy(seed, samples=60):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 2, (samples, 4)).astype(float)
    return X, X @ [2, -1, 1, 0] - 1 + rng.normal(0, 0.8, samples) > 0


def all_systems(p, most, offset):
    """Return every system's offset and points, one per row."""
    return np.array(
        list(itertools.product(range(-offset, offset + 1), *[range(-most, most + 1)] * p))
    )


def objectives(systems, X, y, sparsity, weight=None):
    weight = np.full(len(y), 1 / len(y)) if weight is None else weight / weight.sum()
    positive = systems[:, 1:] @ X.T + systems[:, :1] > 0
    wrong = (positive != y) @ weight
    return wrong + sparsity * np.count_nonzero(systems[:, 1:], axis=1), positive


class TestOptimum:
    def test_finds_planted_points(self, planted):
        X, y, _ = planted
        model = ScoringSystem(0.005, max_points=3, max_offset=5).fit(X, np.where(y, "ill", "fit"))
        assert model.score(X, np.where(y, "ill", "fit")) == 1.0
        assert model.gap_ <= 1e-9
        assert np.flatnonzero(model.points_).tolist() == [0, 1, 4]
        assert model.objective_ == pytest.approx(0.015)

    @pytest.mark.parametrize("reduce", [False, True])
    @pytest.mark.parametrize("seed", range(4))
    def test_no_system_is_better(self, seed, reduce):
        X, y = noisy(seed)
        model = ScoringSystem(0.02, max_points=3, max_offset=4, data_reduction=reduce).fit(X, y)
        best = objectives(all_systems(4, 3, 4), X, y, 0.02)[0].min()
        assert model.objective_ == pytest.approx(best)
        assert model.gap_ <= 1e-9
        assert np.mean(model.predict(X) != y) + 0.02 * np.count_nonzero(model.points_) == (
            pytest.approx(best)
        )
        assert model.n_patterns_ <= 16

    def test_of_equal_systems_the_points_are_small_and_coprime(self):
        X = np.array([[0.0], [1.0]] * 5)
        model = ScoringSystem(max_points=10).fit(X, X[:, 0] > 0)
        assert (model.points_.tolist(), model.offset_) == ([1], 0)

    @pytest.mark.parametrize("weights", [{False: 1, True: 5}, {False: 7, True: 1}, "balanced"])
    def test_class_weights_count_errors(self, weights):
        X, y = noisy(5)
        model = ScoringSystem(0.02, max_points=3, max_offset=4, class_weight=weights).fit(X, y)
        if weights == "balanced":
            weights = {c: len(y) / np.sum(y == c) for c in (False, True)}
        weight = np.where(y, weights[True], weights[False])
        assert model.objective_ == pytest.approx(
            objectives(all_systems(4, 3, 4), X, y, 0.02, weight)[0].min()
        )

    @pytest.mark.parametrize("reduce", [False, True])
    @pytest.mark.parametrize(
        "limit", [{"min_sensitivity": 0.97}, {"max_false_positive_rate": 0.02}]
    )
    def test_limits_on_rates(self, limit, reduce):
        X, y = noisy(2)
        model = ScoringSystem(0.02, max_points=3, max_offset=4, data_reduction=reduce, **limit).fit(
            X, y
        )
        values, positive = objectives(all_systems(4, 3, 4), X, y, 0.02)
        if "min_sensitivity" in limit:
            allowed = positive[:, y].mean(axis=1) >= 0.97
            assert np.mean(model.predict(X)[y]) >= 0.97
        else:
            allowed = positive[:, ~y].mean(axis=1) <= 0.02
            assert np.mean(model.predict(X)[~y]) <= 0.02
        assert values[allowed].min() > values.min() + 1e-9  # the limit costs something
        assert model.objective_ == pytest.approx(values[allowed].min())

    def test_a_feature_may_require_another(self):
        X, y = noisy(1)
        model = ScoringSystem(0.02, max_points=3, max_offset=4, requires=[(0, 3)]).fit(X, y)
        systems = all_systems(4, 3, 4)
        values = objectives(systems, X, y, 0.02)[0]
        allowed = (systems[:, 1] == 0) | (systems[:, 4] != 0)
        assert values[allowed].min() > values.min() + 1e-9
        assert model.objective_ == pytest.approx(values[allowed].min())
        assert model.points_[0] == 0 or model.points_[3] != 0

    def test_signs_and_number_of_features(self):
        X, y = noisy(3)
        signs = [-1, 0, 0, 1]
        model = ScoringSystem(max_points=3, max_offset=5, max_features=1, signs=signs).fit(X, y)
        assert np.count_nonzero(model.points_) <= 1
        assert model.points_[0] <= 0 <= model.points_[3]


class TestDataReduction:
    def test_decided_classes_are_those_of_every_good_system(self):
        """And some are decided, or the test would show nothing."""
        rng = np.random.default_rng(0)
        X = rng.integers(0, 2, (200, 4)).astype(float)
        y = X @ [2, -1, 1, 0] - 1 > 0
        y[:2] = ~y[:2]
        weight = np.full(200, 1 / 200)
        patterns = Patterns.of(X, y.astype(int), weight)
        limits = Limits(np.full(4, -2), np.full(4, 2), 2)
        systems = all_systems(4, 2, 2)
        values = objectives(systems, X, y, 0.005)[0]
        upper = float(values.min()) + 0.003
        known = Program(patterns, 0.005, limits).decided(upper)
        good = systems[values <= upper]
        classes = np.where(good[:, 1:] @ patterns.X.T + good[:, :1] > 0, 1, -1)
        assert np.count_nonzero(known) >= 3
        assert np.all((known == 0) | (known == classes))

    def test_merging_keeps_every_objective(self):
        X, y = noisy(0)
        patterns = Patterns.of(X, y.astype(int), np.full(60, 1 / 60))
        systems = all_systems(4, 1, 1)
        for system, value in zip(systems, objectives(systems, X, y, 0.0)[0], strict=True):
            assert patterns.error(patterns.X @ system[1:] + system[0] > 0) == pytest.approx(value)


class TestUnits:
    """Features in any units: the best system is found, or a warning says that it is not."""

    @pytest.fixture(autouse=True)
    def no_warnings(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            yield

    def test_a_column_of_large_fractions_leaves_the_others_their_effect(self, planted):
        X, y, rng = planted
        wide = np.column_stack([X, rng.normal(5e4, 1.5e4, 120)])
        model = ScoringSystem(0.005, max_points=3, max_offset=5).fit(wide, y)
        assert model.score(wide, y) == 1.0
        assert model.objective_ == pytest.approx(0.015)

    @pytest.mark.parametrize("unit", [1e3, 1e6])
    def test_objective_is_that_of_the_points(self, unit):
        X, y = noisy(1)
        X[:, 0] *= unit
        model = ScoringSystem(0.005, max_points=3, max_offset=4).fit(X, y)
        best = objectives(all_systems(4, 3, 4), X, y, 0.005)[0].min()
        assert model.objective_ == pytest.approx(best)
        wrong = np.mean(model.predict(X) != y)
        assert model.objective_ == pytest.approx(wrong + 0.005 * np.count_nonzero(model.points_))

    def test_decimals_that_sum_to_zero_are_zero(self):
        X = np.array([[0.1, 0.3], [0.2, 0.3]] * 10)
        model = ScoringSystem(max_points=3, max_offset=0, signs=[1, -1]).fit(X, X[:, 0] > 0.15)
        assert model.score(X, X[:, 0] > 0.15) == 1.0
        model.points_ = np.array([3, -1])  # 3 x 0.1 - 0.3 is 5.6e-17 in floating point
        assert model.decision_function(X[:1]) == 0

    @pytest.mark.parametrize("unit", [1e9, 1e12, 1e150, 1e-12, 1e-150])
    def test_what_cannot_be_resolved_is_warned_of(self, unit):
        X, y = noisy(1)
        X[:, 0] *= unit
        best = objectives(all_systems(4, 3, 4), X, y, 0.005)[0].min()
        try:
            model = ScoringSystem(0.005, max_points=3, max_offset=4).fit(X, y)
        except ConvergenceWarning:
            return
        assert model.objective_ == pytest.approx(best)


def test_the_solver_is_not_taken_at_its_word(monkeypatch):
    """Points that do less than the solver states are judged by what they do, with a warning."""
    X, y = noisy(1)
    honest = ScoringSystem(0.02, max_points=3, max_offset=4).fit(X, y)
    solve = Program.solve

    def boastful(self, *arguments):
        found = solve(self, *arguments)
        found.fun -= 0.1
        return found

    monkeypatch.setattr(Program, "solve", boastful)
    with pytest.warns(ConvergenceWarning, match="too far for whole points; divide the largest"):
        model = ScoringSystem(0.02, max_points=3, max_offset=4).fit(X, y)
    assert model.objective_ == honest.objective_


class TestCard:
    def test_labels_are_plain(self, planted):
        X, y, _ = planted
        frame = pd.DataFrame(X, columns=list("abcdef"))
        model = ScoringSystem(0.005, max_points=3, max_offset=5).fit(frame, np.where(y, "ill", "a"))
        assert model.card_text().splitlines() == [
            "Predict ill if the total exceeds 1:",
            "  a  +2 points per unit",
            "  b  -1 points per unit",
            "  e  +1 points per unit",
        ]


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_points": 2.5}, "max_points must be a whole number of at least 1, got 2.5"),
            ({"max_offset": -1}, "max_offset must be a whole number of at least 0, got -1"),
            ({"max_features": 0}, "max_features must be a whole number"),
            ({"time_limit": 0}, "time_limit must be a finite number above 0, got 0"),
            ({"sparsity": 1.0}, "sparsity must be a number above 0 and below 1"),
            ({"signs": ["a"] * 6}, "signs must be -1, 0 or 1"),
            ({"signs": [1, 2, 0, 0, 0, 0]}, "signs must be -1, 0 or 1"),
            ({"signs": [1]}, r"signs has shape \(1,\), X has 6 features"),
            ({"min_sensitivity": 1.2}, "min_sensitivity must be a number from 0 to 1, got 1.2"),
            ({"requires": [(0, 6)]}, r"requires holds \(0, 6\)"),
            ({"class_weight": {False: -1}}, "class_weight must not be negative"),
        ],
    )
    def test_bad_options(self, options, message, planted):
        X, y, _ = planted
        with pytest.raises(OptionError, match=message):
            ScoringSystem(**options).fit(X, y)

    def test_limits_that_contradict_each_other(self):
        X, y = noisy(0)
        limits = {"min_sensitivity": 1.0, "max_false_positive_rate": 0.0}
        with pytest.raises(DataError, match="no points satisfy the limits"):
            ScoringSystem(max_points=1, max_offset=1, **limits).fit(X, y)

    def test_a_single_class(self):
        with pytest.raises(DataError, match="one class"):
            ScoringSystem().fit(np.eye(4), np.ones(4))


def test_a_search_that_ends_by_its_nodes_finds_the_same_again():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 10))
    y = X[:, 0] + rng.standard_normal(50) > 0
    first, second = (ScoringSystem(node_limit=1).fit(X, y) for _ in range(2))
    assert first.gap_ > 1e-3  # it was cut short
    np.testing.assert_array_equal(first.points_, second.points_)
