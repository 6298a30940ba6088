"""Knockoffs: they look like the features, and false discoveries stay rare."""

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import DataError, OptionError
from thresher.linear import KnockoffSelection, Lasso, SparseLogistic
from thresher.linear.penalised import knockoffs

P = 20
DISTANCE = np.abs(np.subtract.outer(np.arange(P), np.arange(P)))
CORRELATION = 0.6**DISTANCE


@parametrize_with_checks([KnockoffSelection(Lasso(alpha=0.1), fdr=0.5, random_state=0)])
@pytest.mark.filterwarnings("ignore:no features are kept", "ignore:No features were selected")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def drawn(rng, n):
    return rng.multivariate_normal(np.zeros(P), CORRELATION, size=n)


def test_no_entry_of_the_separation_gains_entropy():
    s = knockoffs.maximum_entropy(CORRELATION)
    joint = 2 * CORRELATION - np.diag(s)
    assert np.linalg.eigvalsh(joint)[0] > 0
    # Stationary: the derivative of log det(2 C - S) + log det S.
    np.testing.assert_allclose(1 / s, np.linalg.inv(joint).diagonal(), rtol=1e-4)
    np.testing.assert_allclose(knockoffs.maximum_entropy(np.eye(3)), 1.0)


def test_knockoffs_have_the_correlations_of_their_features_with_all_others():
    rng = np.random.RandomState(0)
    X = rng.multivariate_normal(np.zeros(P), CORRELATION, size=100_000)
    s = knockoffs.maximum_entropy(CORRELATION)
    fakes = knockoffs._knockoffs(X, CORRELATION, s, rng)
    both = np.cov(np.hstack([X, fakes]).T)
    np.testing.assert_allclose(both[P:, P:], CORRELATION, atol=0.02)
    np.testing.assert_allclose(both[:P, P:], CORRELATION - np.diag(s), atol=0.02)


def test_the_threshold_by_hand():
    w = np.array([5.0, 4.0, 3.0, 2.0, 1.0, -1.5, 0.0])
    # At 2 four are kept and none below -2: (1 + 0) / 4; at 1 five, and one: (1 + 1) / 5.
    assert knockoffs.knockoff_threshold(w, 0.25) == 2.0
    assert knockoffs.knockoff_threshold(w, 0.4) == 1.0
    assert knockoffs.knockoff_threshold(w, 0.2) == np.inf
    assert knockoffs.knockoff_threshold(np.zeros(3), 0.9) == np.inf


def test_false_discoveries_are_as_rare_as_asked():
    rng, shares, found = np.random.default_rng(1), [], []
    truth = np.arange(P) % 2 == 0
    for seed in range(40):
        X = drawn(rng, 150)
        y = X @ np.where(truth, 0.5, 0.0) + rng.standard_normal(150)
        kept = KnockoffSelection(Lasso(alpha=0.08), fdr=0.2, random_state=seed).fit(X, y)
        support = kept.get_support()
        shares.append((support & ~truth).sum() / max(1, support.sum()))
        found.append(support[truth].mean())
    assert np.mean(shares) < 0.2 + 2 * np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) > 0  # the bound is about something
    assert np.mean(found) > 0.8


@pytest.mark.filterwarnings("ignore:no features are kept")
def test_a_target_of_nothing_keeps_nothing_mostly():
    rng = np.random.default_rng(2)
    kept = []
    for seed in range(20):
        selection = KnockoffSelection(Lasso(alpha=0.05), fdr=0.2, random_state=seed)
        kept.append(selection.fit(drawn(rng, 100), rng.standard_normal(100)).get_support())
    # Every discovery is false here, so that one is made in at most a fifth of all runs.
    assert np.mean([each.any() for each in kept]) <= 0.35


def test_classes_units_and_constant_columns():
    rng = np.random.default_rng(3)
    X = drawn(rng, 300)
    y = np.where(X[:, :10].sum(axis=1) > 0, "high", "low")
    selection = KnockoffSelection(SparseLogistic(alpha=0.01), fdr=0.2, random_state=0)
    plain = selection.fit(X, y).statistic_
    assert plain[:10].min() > np.abs(plain[10:]).max() / 2
    wide = np.column_stack([1e6 * X, np.ones(300)])
    found = selection.fit(wide, y).statistic_
    np.testing.assert_allclose(found[:P], plain, rtol=1e-6)
    assert found[P] == 0


def test_bad_input():
    rng = np.random.default_rng(4)
    X, y = drawn(rng, 100), rng.standard_normal(100)
    with pytest.raises(OptionError, match="fdr must be"):
        KnockoffSelection(fdr=1.0).fit(X, y)
    with pytest.warns(UserWarning, match="at least 10 must beat"):
        KnockoffSelection(Lasso(alpha=0.5), random_state=0).fit(X, y)
    with pytest.raises(OptionError, match="estimator must be one with coef_"):
        KnockoffSelection("lasso").fit(X, y)
    twice = np.column_stack([X, X[:, 0]])
    with pytest.raises(DataError, match=r"singular .* leave out repeated columns"):
        KnockoffSelection(covariance=EmpiricalCovariance()).fit(twice, y)
