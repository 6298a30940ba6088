"""Turbo-VBI for regression: the chain's messages, the updates, and runs of non-zeros."""

import itertools

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import gamma
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import OptionError
from thresher.linear import ClusteredBayes
from thresher.linear.bayes.clustered import (
    _INSIDE,
    _OUTSIDE,
    _WARM_UP,
    _precision,
    _Supports,
    extrinsic,
)


@parametrize_with_checks([ClusteredBayes(max_iter=2000)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_messages_are_the_marginals_of_the_chain():
    rng = np.random.default_rng(0)
    start, transition = np.array([0.7, 0.3]), np.array([[0.8, 0.2], [0.4, 0.6]])
    evidence = rng.standard_normal(6)
    found = extrinsic(evidence, start, transition)
    for j in range(6):
        weights = np.zeros(2)
        for states in itertools.product([0, 1], repeat=6):
            weight = start[states[0]]
            weight *= np.prod([transition[a, b] for a, b in itertools.pairwise(states)])
            weights[states[j]] += weight * np.exp(
                sum(evidence[i] * s for i, s in enumerate(states) if i != j)
            )
        assert found[j] == pytest.approx(weights[1] / weights.sum())


def test_independent_columns_hear_only_the_prior():
    supports = _Supports(0.2, 1 / 0.8, 10)
    evidence = np.random.default_rng(0).standard_normal(10)
    np.testing.assert_allclose(extrinsic(evidence, supports.start, supports.transition), 0.2)


def test_evidence_and_mean_of_a_precision():
    moments = np.array([0.01, 3.0])
    for shape, rate in (_INSIDE, _OUTSIDE):
        evidence, mean = _precision(moments, shape, rate)
        for moment, value, expected in zip(moments, evidence, mean, strict=True):

            def joint(log_precision, moment=moment, shape=shape, rate=rate):
                at = np.exp(log_precision)
                return gamma.pdf(at, shape, scale=1 / rate) * at**1.5 * np.exp(-at * moment / 2)

            total = quad(joint, -15, 15, limit=500)[0]
            assert value == pytest.approx(np.log(total), abs=1e-4)
            first = quad(lambda t, f=joint: f(t) * np.exp(t), -15, 15, limit=500)[0]
            assert expected == pytest.approx(first / total, rel=1e-4)


def test_supports_follow_the_moments_after_the_warm_up():
    supports = _Supports(0.3, 4.0, 5)
    moments = np.array([1.0, 1e-8, 0.5, 1e-6, 2.0])
    for _ in range(_WARM_UP):
        np.testing.assert_array_equal(supports.update(moments), moments)
    variances = supports.update(moments)
    np.testing.assert_array_equal(supports.posterior > 0.5, moments > 0.1)
    assert np.all(variances[moments < 0.1] < 1e-2 * variances[moments > 0.1].min())


@pytest.fixture(scope="module")
def runs():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 150))
    coef = np.zeros(150)
    for start in (20, 70, 110):
        coef[start : start + 8] = rng.choice([-1, 1], 8) * rng.uniform(0.5, 1.5, 8)
    return X, coef, X @ coef + 0.05 * rng.standard_normal(50)


def test_finds_runs_behind_means_and_scales(runs):
    X, coef, y = runs
    model = ClusteredBayes(0.15, run_length=8).fit(5 * X + 3, 5 * y + 2)
    np.testing.assert_array_equal(model.probabilities_ > 0.5, coef != 0)
    np.testing.assert_allclose(model.coef_, coef, atol=0.15)
    apart = ClusteredBayes(0.15, run_length=1 / 0.85).fit(5 * X + 3, 5 * y + 2)
    assert np.linalg.norm(apart.coef_ - coef) > 2 * np.linalg.norm(model.coef_ - coef)


def test_bad_options(runs):
    X, _, y = runs
    with pytest.raises(
        OptionError, match=r"density must be a number above 0 and below 1, got 0\.0"
    ):
        ClusteredBayes(0.0).fit(X, y)
    with pytest.raises(OptionError, match="raise run_length"):
        ClusteredBayes(0.9, run_length=2.0).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        ClusteredBayes(max_iter=2).fit(X, y)
