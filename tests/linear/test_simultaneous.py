"""Simultaneous generalised linear models: the same solutions as one by one."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, LogisticRegression

from thresher.core.errors import DataError, OptionError
from thresher.linear import SimultaneousGLM, datafits, penalties
from thresher.solve.solvers import CoordinateDescent, Problem

from . import problems

LOSSES = ["squares", "logistic", "poisson"]


def related(name, count=6, rows=60, columns=150, mean=0.5):
    """Return features, and permuted targets with bootstrap weights and masks for each."""
    rng = np.random.default_rng(0)
    X, y = problems.problem(name, 0, rows=rows, columns=columns, mean=mean)
    Y = np.column_stack([y, *(rng.permutation(y) for _ in range(count - 1))])
    weights = rng.multinomial(rows, np.ones(rows) / rows, count).T.astype(float)
    weights[:, -1] = rng.random(rows) < 0.8
    return X, Y, weights


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_same_solutions_as_one_by_one(name, l1_ratio, fit_intercept, weighted):
    X, Y, weights = related(name)
    weights = weights if weighted else None
    options = {"l1_ratio": l1_ratio, "fit_intercept": fit_intercept}
    models = SimultaneousGLM(
        problems.DATAFITS[name], n_alphas=4, eps=0.2, tol=1e-12, **options
    ).fit(X, Y, weights)
    assert np.all(models.gaps_ <= 1e-12)
    for k in range(Y.shape[1]):
        for step, alpha in enumerate(models.alphas_[:, k]):
            penalty = penalties.L1L2(alpha * l1_ratio, ridge=alpha * (1 - l1_ratio))
            weight = None if weights is None else weights[:, k]
            problem = Problem.build(
                X, Y[:, k], problems.DATAFITS[name], penalty, weight, fit_intercept
            )
            single = CoordinateDescent(tol=1e-12).solve(problem)
            np.testing.assert_allclose(models.coefs_[step].toarray()[k], single.coef, atol=1e-4)
            assert models.intercepts_[step, k] == pytest.approx(single.intercept, abs=1e-4)
    first = models.coefs_[0].toarray()
    assert np.all(first == 0)  # the largest strength is the smallest that gives zeros


def test_agrees_with_scikit_learn():
    X, Y, weights = related("squares")
    models = SimultaneousGLM(alphas=[0.1, 0.3], l1_ratio=0.7, tol=1e-12).fit(X, Y, weights)
    np.testing.assert_array_equal(models.alphas_[:, 0], [0.3, 0.1])
    peer = ElasticNet(0.1, l1_ratio=0.7, tol=1e-12, max_iter=100_000)
    predictions = models.decision_function(X)
    for k in range(Y.shape[1]):
        peer.fit(X, Y[:, k], weights[:, k])
        np.testing.assert_allclose(models.coefs_[1].toarray()[k], peer.coef_, atol=1e-6)
        np.testing.assert_allclose(predictions[1, :, k], peer.predict(X), atol=1e-5)


def test_agrees_with_scikit_learn_on_logistic():
    X, Y, _ = related("logistic", mean=0.0)
    models = SimultaneousGLM(
        datafits.Logistic(), alphas=[0.05], tol=1e-12, fit_intercept=False
    ).fit(X, Y)
    peer = LogisticRegression(
        C=1 / (0.05 * len(X)), l1_ratio=1.0, solver="liblinear", fit_intercept=False,
        tol=1e-10, max_iter=10_000,
    )  # fmt: skip
    for k in range(Y.shape[1]):
        np.testing.assert_allclose(
            models.coefs_[0].toarray()[k], peer.fit(X, Y[:, k]).coef_[0], atol=1e-6
        )


def test_a_mask_is_the_fit_of_the_rows_it_leaves():
    X, Y, _ = related("logistic")
    masks = np.array([np.arange(len(X)) % 5 != fold for fold in range(5)]).T
    models = SimultaneousGLM(datafits.Logistic(), alphas=[0.05], tol=1e-12).fit(X, Y[:, 0], masks)
    for fold in range(5):
        kept = masks[:, fold]
        single = SimultaneousGLM(datafits.Logistic(), alphas=[0.05], tol=1e-12)
        single.fit(X[kept], Y[kept, 0])
        difference = models.coefs_[0].toarray()[fold] - single.coefs_[0].toarray()[0]
        assert np.max(np.abs(difference)) < 1e-6


def test_many_portions_give_the_same(monkeypatch):
    from thresher.solve.solvers import together

    X, Y, weights = related("logistic")
    whole = SimultaneousGLM(datafits.Logistic(), n_alphas=5, tol=1e-12).fit(X, Y, weights)
    monkeypatch.setattr(together, "_NUMBERS", 1)
    parts = SimultaneousGLM(datafits.Logistic(), n_alphas=5, tol=1e-12).fit(X, Y, weights)
    for a, b in zip(whole.coefs_, parts.coefs_, strict=True):
        np.testing.assert_allclose(a.toarray(), b.toarray(), atol=1e-5)
    assert isinstance(parts.coefs_[0], sparse.csr_array)


def test_degenerate_columns_and_targets():
    X, Y, _ = related("squares")
    X = np.column_stack([X, np.ones(len(X)), X[:, 0]])
    Y[:, 1] = 0.1
    models = SimultaneousGLM(n_alphas=5).fit(X, Y)
    assert np.all(models.gaps_ <= 1e-6)
    assert np.all(models.coefs_[-1].toarray()[1] == 0)
    assert np.all(models.coefs_[-1].toarray()[:, -2] == 0)
    assert models.intercepts_[-1, 1] == pytest.approx(0.1)


def test_a_large_mean_of_the_target_changes_the_intercept_alone():
    X, Y, _ = related("squares")
    far = Y + 1e9
    one, other = (
        SimultaneousGLM(n_alphas=5, tol=1e-10).fit(X, target) for target in (far - 1e9, far)
    )
    for a, b in zip(one.coefs_, other.coefs_, strict=True):
        np.testing.assert_allclose(a.toarray(), b.toarray(), atol=1e-6)
    np.testing.assert_allclose(other.intercepts_ - 1e9, one.intercepts_, atol=1e-5)
    assert np.all(np.abs(other.gaps_) <= 1e-10)


def test_missed_tolerance_is_reported():
    X, Y, _ = related("logistic")
    with pytest.warns(ConvergenceWarning, match="fits did not reach the tolerance"):
        SimultaneousGLM(datafits.Logistic(), max_iter=1, eps=0.01, n_alphas=2).fit(X, Y)


def test_bad_input():
    X, Y, weights = related("logistic")
    with pytest.raises(OptionError, match="datafit must be Squares, Logistic or Poisson"):
        SimultaneousGLM(datafits.Huber()).fit(X, Y)
    with pytest.raises(OptionError, match="l1_ratio must be a number above 0 and at most 1"):
        SimultaneousGLM(l1_ratio=0.0).fit(X, Y)
    with pytest.raises(OptionError, match=r"n_alphas must be a whole number.*2\.5"):
        SimultaneousGLM(n_alphas=2.5).fit(X, Y)
    with pytest.raises(OptionError, match="max_iter must be a whole number"):
        SimultaneousGLM(max_iter=0).fit(X, Y)
    with pytest.raises(OptionError, match="eps must be a number above 0 and below 1, got 1"):
        SimultaneousGLM(eps=1).fit(X, Y)
    with pytest.raises(OptionError, match="alphas must be"):
        SimultaneousGLM(alphas=[0.0]).fit(X, Y)
    with pytest.raises(DataError, match="Y must hold finite numbers for 60 samples"):
        SimultaneousGLM().fit(X, Y[:5])
    with pytest.raises(DataError, match="Y has 6 problems, sample_weight 2"):
        SimultaneousGLM().fit(X, Y, weights[:, :2])
    with pytest.raises(DataError, match="must not be negative"):
        SimultaneousGLM().fit(X, Y, -weights)
    with pytest.raises(DataError, match="targets -1 and"):
        SimultaneousGLM(datafits.Logistic()).fit(X, Y + 1)
