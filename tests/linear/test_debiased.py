"""The debiased Lasso: least squares where that exists, and intervals that hold the truth."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import DataError, OptionError
from thresher.linear import DebiasedLasso, Lasso

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 8)) @ (np.eye(8) + 0.3)
Y = X[:, 0] - 2 * X[:, 5] + RNG.standard_normal(60) + 3


@parametrize_with_checks([DebiasedLasso(alpha=0.1)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_without_penalties_on_the_others_it_is_least_squares():
    design = np.column_stack([np.ones(60), X])
    exact = np.linalg.lstsq(design, Y, rcond=None)[0]
    inverse = np.linalg.inv(design.T @ design)
    for alpha in (0.01, 0.3):  # whatever the Lasso found
        model = DebiasedLasso(alpha, node_alpha=0).fit(X, Y)
        np.testing.assert_allclose(model.debiased_, exact[1:], rtol=1e-6)
        errors = model.noise_ * np.sqrt(inverse.diagonal()[1:])
        np.testing.assert_allclose(model.stderr_, errors, rtol=1e-6)
    lasso = Lasso(0.3).fit(X, Y)
    np.testing.assert_array_equal(model.coef_, lasso.coef_)
    np.testing.assert_array_equal(model.predict(X), lasso.predict(X))
    left = 60 - 1 - np.count_nonzero(lasso.coef_)
    assert model.noise_ == pytest.approx(np.sqrt(((Y - lasso.predict(X)) ** 2).sum() / left))


def test_intervals_hold_the_truth_with_more_features_than_samples():
    rng, truth = np.random.default_rng(1), np.zeros(120)
    truth[:3] = 1.0
    covered, rejected, of_lasso = [], [], []
    for _ in range(25):
        features = rng.standard_normal((80, 120))
        model = DebiasedLasso(alpha=0.25, node_alpha=0.3)
        model.fit(features, features @ truth + rng.standard_normal(80))
        low, high = model.interval(0.9).T
        covered.append((low <= truth) & (truth <= high))
        rejected.append(model.pvalues_ < 0.01)
        of_lasso.append((low <= model.coef_) & (model.coef_ <= high))
    covered, rejected = np.array(covered), np.array(rejected)
    assert 0.85 < covered[:, 3:].mean() < 0.99
    assert covered[:, :3].mean() > 0.75
    assert rejected[:, :3].mean() > 0.9
    assert rejected[:, 3:].mean() < 0.03
    # The Lasso's own coefficients are shrunken out of the intervals.
    assert np.array(of_lasso)[:, :3].mean() < 0.5


def test_units_constant_and_repeated_features():
    model = DebiasedLasso(0.1, node_alpha=0.2).fit(X, Y)
    scale = 10.0 ** np.arange(-4, 4)
    # The Lasso's own strength is in units of the features; what is taken back is not.
    free = DebiasedLasso(1e-9, node_alpha=0.2).fit(X, Y)
    other = DebiasedLasso(1e-9, node_alpha=0.2).fit(X * scale, Y)
    np.testing.assert_allclose(other.debiased_ * scale, free.debiased_, rtol=1e-3)
    np.testing.assert_allclose(other.stderr_ * scale, free.stderr_, rtol=1e-3)
    wide = np.column_stack([X, np.ones(60)])
    found = DebiasedLasso(0.1, node_alpha=0.2).fit(wide, Y)
    np.testing.assert_allclose(found.debiased_[:8], model.debiased_, rtol=1e-4)
    assert found.debiased_[8] == 0
    assert np.isinf(found.stderr_[8])
    assert found.pvalues_[8] == 1
    twice = DebiasedLasso(0.1, node_alpha=0).fit(np.column_stack([X, X[:, 0]]), Y)
    assert np.isinf(twice.stderr_[[0, 8]]).all()
    assert np.isfinite(twice.stderr_[1:8]).all()


def test_bad_input():
    with pytest.raises(OptionError, match="node_alpha must be"):
        DebiasedLasso(node_alpha=-1).fit(X, Y)
    with pytest.raises(OptionError, match="level must be"):
        DebiasedLasso(0.1).fit(X, Y).interval(95)
    with pytest.raises(DataError, match="raise alpha"):
        DebiasedLasso(1e-9).fit(X[:8], Y[:8])
