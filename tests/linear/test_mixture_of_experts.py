"""The Lasso mixture of experts: EM never falls, one expert is the Lasso, and recovery."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import OptionError
from thresher.linear import Lasso, LassoMixtureOfExperts


@parametrize_with_checks([LassoMixtureOfExperts(starts=1, random_state=0)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 30))
    first = rng.random(400) < 1 / (1 + np.exp(-4 * X[:, 0]))
    y = np.where(first, 2 * X[:, 1] + 1, -2 * X[:, 2] - 1) + 0.3 * rng.standard_normal(400)
    return X, y, first


def test_finds_experts_and_gate(planted):
    X, y, first = planted
    model = LassoMixtureOfExperts(2, alpha=0.05, random_state=0).fit(X, y)
    leading = int(np.argmax(model.coef_[:, 1]))
    assert model.coef_[leading, 1] == pytest.approx(2, abs=0.2)
    assert model.coef_[1 - leading, 2] == pytest.approx(-2, abs=0.2)
    assert model.intercept_[leading] == pytest.approx(1, abs=0.2)
    assert np.all(np.sqrt(model.variances_) < 0.5)
    others = model.coef_.copy()
    others[leading, 1] = others[1 - leading, 2] = 0
    assert np.max(np.abs(others)) < 0.2
    assert np.argmax(np.abs(model.gate_coef_[leading] - model.gate_coef_[1 - leading])) == 0
    right = (model.predict_gate(X)[:, leading] > 0.5) == first
    assert right.mean() > 0.8
    assert model.score(X, y) > Lasso(0.05).fit(X, y).score(X, y) + 0.1


def test_objective_never_falls_and_is_the_stated_one(planted):
    X, y, _ = planted
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    y = (y - y.mean()) / y.std()
    model = LassoMixtureOfExperts(3, alpha=0.03, starts=2, random_state=1).fit(X, y)
    assert np.all(np.diff(model.objective_) >= -1e-9)
    scaled = model.coef_ / np.sqrt(model.variances_)[:, None]
    size = np.abs(scaled).sum() + np.abs(model.gate_coef_).sum()
    value = model.log_density(X, y).mean() - 0.03 * size
    assert model.objective_[-1] == pytest.approx(value, abs=1e-8)


def test_density_is_the_mixture(planted):
    X, y, _ = planted
    model = LassoMixtureOfExperts(2, starts=1, random_state=0).fit(X, y)
    scores = X @ model.gate_coef_.T + model.gate_intercept_
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    means = X @ model.coef_.T + model.intercept_
    density = np.sum(shares * norm.pdf(y[:, None], means, np.sqrt(model.variances_)), axis=1)
    np.testing.assert_allclose(model.log_density(X, y), np.log(density))
    np.testing.assert_allclose(model.predict_gate(X), shares)
    np.testing.assert_allclose(model.predict(X), np.sum(shares * means, axis=1))


def test_one_expert_is_the_lasso_of_its_deviation(planted):
    X, y, _ = planted
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    y = (y - y.mean()) / y.std()
    model = LassoMixtureOfExperts(1, alpha=0.1, starts=1, tol=1e-12).fit(X, y)
    lasso = Lasso(0.1 * np.sqrt(model.variances_[0])).fit(X, y)
    np.testing.assert_allclose(model.coef_[0], lasso.coef_, atol=1e-4)


def test_bad_options(planted):
    X, y, _ = planted
    with pytest.raises(OptionError, match="n_experts must be a whole number of at least 1, got 0"):
        LassoMixtureOfExperts(0).fit(X, y)
    with pytest.raises(OptionError, match="alpha must be a finite number above 0"):
        LassoMixtureOfExperts(alpha=0.0).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="the objective still rose"):
        LassoMixtureOfExperts(max_iter=3, starts=1).fit(X, y)
