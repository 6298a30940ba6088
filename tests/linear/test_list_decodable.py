"""List-decodable regression: the list holds the truth, stays short, and splits by the rule."""

import numpy as np
import pytest

from thresher.core.errors import DataError, OptionError
from thresher.linear import ListDecodableRegression
from thresher.linear.regimes.list_decodable import _Batches
from thresher.linear.regimes.multi_filter import multi_filter


def batches(seed, genuine=0.3, count=200, size=8, features=6):
    """Return samples in batches: a genuine regression, and two others of the same size."""
    rng = np.random.default_rng(seed)
    truths = 3 * rng.standard_normal((3, features))
    kind = rng.choice(3, count, p=[genuine, (1 - genuine) / 2, (1 - genuine) / 2])
    X = rng.standard_normal((count * size, features))
    groups = np.repeat(np.arange(count), size)
    y = np.sum(X * truths[kind[groups]], axis=1) + rng.standard_normal(len(X))
    return X, y, groups, truths, kind


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_the_list_holds_every_component(seed, noise):
    X, y, groups, truths, kind = batches(seed)
    model = ListDecodableRegression(0.25, noise=noise).fit(X, y, groups)
    assert len(model.candidates_) <= 4 / 0.25**2
    for truth in truths:
        assert np.min(np.linalg.norm(model.candidates_ - truth, axis=1)) < 0.3
    nearest = int(np.argmin(np.linalg.norm(model.candidates_ - truths[0], axis=1)))
    assert np.average(kind == 0, weights=model.weights_[nearest]) > 0.9
    trusted = np.random.default_rng(9).standard_normal((20, 6))
    np.testing.assert_array_equal(
        model.choose(trusted, trusted @ truths[0]), model.candidates_[nearest]
    )


def test_genuine_batches_alone_give_one_candidate():
    X, y, groups, truths, _ = batches(0, genuine=1.0)
    model = ListDecodableRegression(0.9).fit(X, y, groups)
    assert len(model.candidates_) == 1
    np.testing.assert_allclose(model.candidates_[0], truths[0], atol=0.15)
    np.testing.assert_array_equal(model.weights_[0], 1)


def test_the_scale_of_the_features_does_not_matter():
    X, y, groups, _, _ = batches(1)
    scales = np.array([1e-2, 1, 1, 1, 1, 1e2])
    plain = ListDecodableRegression(0.25).fit(X, y, groups)
    scaled = ListDecodableRegression(0.25).fit(X * scales, y, groups)
    np.testing.assert_allclose(scaled.weights_, plain.weights_, atol=1e-2)
    np.testing.assert_allclose(scaled.candidates_ * scales, plain.candidates_, atol=1e-2)


def test_clipped_gradients_balance():
    X, y, groups, _, _ = batches(0)
    model = _Batches(X, y, groups, 2.0)
    weights = np.random.default_rng(0).random(200)
    coef = model.balanced(weights)
    slopes = np.clip(X @ coef - y, -2, 2) * weights[groups]
    assert np.max(np.abs(X.T @ slopes)) < 1e-4 * np.sum(np.abs(X))


class TestMultiFilter:
    def test_allowed_variance_is_left_alone(self):
        places = np.random.default_rng(0).standard_normal(100)
        assert multi_filter(places, np.ones(100), 1.05 * places.var(), 0.05) is None

    @pytest.mark.parametrize("size", [50, 500])
    def test_two_clusters_are_split_with_their_weights(self, size):
        rng = np.random.default_rng(0)
        places = np.concatenate([rng.normal(-100, 1, size), rng.normal(100, 1, 2 * size)])
        weights = rng.random(3 * size)
        left, right = multi_filter(places, weights, 3.0, 0.05)
        np.testing.assert_array_equal(left[places < 0], weights[places < 0])
        np.testing.assert_array_equal(right[places > 0], weights[places > 0])
        assert left[places > 0].sum() < 0.03 * weights.sum()
        assert right[places < 0].sum() < 0.03 * weights.sum()
        assert left.sum() ** 2 + right.sum() ** 2 <= weights.sum() ** 2

    def test_the_split_is_the_best_of_all_by_its_rule(self):
        places = np.array([0.0, 1.0, 2.0, 8.0, 9.0])
        weights = np.array([1.0, 0.5, 1.0, 1.0, 0.5])
        left, right = multi_filter(places, weights, 1.0, 0.05)
        # Cut at 2 and 8: R = 3, shares removed 2.5 / 4 and 1.5 / 4, gain 9 (1 - 17 / 32) = 4.2;
        # the next best, at 1 and 8: R = 3.5, removed 1.5 / 4 each, gain 12.25 (1 - 25 / 32) = 2.7.
        np.testing.assert_array_equal(left, [1, 0.5, 1, 0, 0])
        np.testing.assert_array_equal(right, [0, 0, 0, 1, 0.5])

    def test_outliers_lose_weight_by_their_squared_distance(self):
        places = np.concatenate([np.linspace(-1, 1, 98), [3.0, 21.0]])
        (kept,) = multi_filter(places, np.ones(100), 1.0, 0.02)
        high = places[97]  # the least number with no more than two hundredths above it
        assert kept[-1] == 0
        assert kept[-2] == pytest.approx(1 - ((3 - high) / (21 - high)) ** 2)
        np.testing.assert_array_equal(kept[2:98], 1)

    def test_few_numbers_without_tails_lose_the_farthest_from_the_mean(self):
        # The best split, at -3 and 0, has R = 1.5 and removes 0.2: 0.45 < 0.15 * 3.5.
        (kept,) = multi_filter(np.array([-3.0, 0, 0, 0, 3]), np.ones(5), 3.5, 0.1)
        np.testing.assert_array_equal(kept, [0, 1, 1, 1, 0])

    def test_numbers_without_weight_count_for_nothing(self):
        places = np.array([-9.0, -10, 9, 10, 1e6])
        left, right = multi_filter(places, np.array([1.0, 1, 1, 1, 0]), 1.0, 0.05)
        np.testing.assert_array_equal(left, [1, 1, 0, 0, 0])
        np.testing.assert_array_equal(right, [0, 0, 1, 1, 0])


def test_bad_input():
    X, y, groups, _, _ = batches(0)
    with pytest.raises(OptionError, match="alpha must be a number above 0 and at most 1, got 0"):
        ListDecodableRegression(0).fit(X, y, groups)
    with pytest.raises(DataError, match="groups has shape"):
        ListDecodableRegression().fit(X, y, groups[:5])
    with pytest.raises(DataError, match="has a single sample"):
        ListDecodableRegression().fit(X, y, np.append(groups[:-1], 999))
    with pytest.raises(DataError, match="lower alpha or raise noise"):
        ListDecodableRegression(1.0).fit(X, y, groups)
