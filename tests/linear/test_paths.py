"""Paths of the Lasso and the elastic net: what one fit hands on must not change the next."""

import numpy as np
import pytest
from scipy import sparse

from thresher.core.errors import OptionError
from thresher.linear import ElasticNet, Lasso, MultiTaskLasso, SparseGLM
from thresher.solve.datafits import Squares
from thresher.solve.path import alpha_max, solve_path
from thresher.solve.penalties import L1L2
from thresher.solve.solvers import CoordinateDescent, Problem

from . import problems


def gap(X, y, coef, intercept, alpha, l1_ratio, positive):
    """Return the duality gap by its textbook formula, relative to the objective at zero."""
    n = len(y)
    centred, target = X - X.mean(axis=0), y - y.mean()
    ridge = alpha * (1 - l1_ratio) * n
    # A ridge is least squares on as many more rows, whose target is zero.
    residual = y - X @ coef - intercept
    square = residual @ residual + ridge * coef @ coef
    pull = centred.T @ residual - ridge * coef
    largest = np.max(pull if positive else np.abs(pull))
    scale = min(target @ residual / square, alpha * l1_ratio * n / max(largest, 1e-300))
    primal = square / 2 + alpha * l1_ratio * n * np.abs(coef).sum()
    dual = scale * (target @ residual) - scale**2 * square / 2
    return (primal - dual) / (target @ target / 2)


@pytest.mark.parametrize("tol", [1e-3, 1e-8])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.7])
@pytest.mark.parametrize("layout", [np.asfortranarray, sparse.csc_array])
def test_every_fit_of_a_path_has_the_gap_that_it_reports(layout, l1_ratio, positive, tol):
    X, y = problems.problem("squares", 2, rows=60, columns=150)
    model = ElasticNet(l1_ratio=l1_ratio, positive=positive, tol=tol)
    path = model.path(layout(X), y, n_alphas=30)
    assert path.converged.all()
    for alpha, coef, intercept, criterion in zip(
        path.alphas, path.coefs, path.intercepts, path.criteria, strict=True
    ):
        assert not positive or coef.min() >= 0
        found = gap(X, y, coef, intercept, alpha, l1_ratio, positive)
        assert found == pytest.approx(criterion, abs=1e-11, rel=1e-4)
        assert found <= tol * (1 + 1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_path_is_what_separate_fits_are(dtype):
    X, y = problems.problem("squares", 3, rows=50, columns=300)
    X = X.astype(dtype)
    weight = np.random.default_rng(0).random(50) + 0.1
    path = Lasso(tol=1e-6).path(X, y, n_alphas=12, sample_weight=weight)
    for alpha, coef, intercept in zip(path.alphas, path.coefs, path.intercepts, strict=True):
        alone = Lasso(alpha, tol=1e-10 if dtype == np.float64 else 1e-6).fit(X, y, weight)
        objectives = []
        for w, b in ((coef, intercept), (alone.coef_, alone.intercept_)):
            residual = y - X.astype(float) @ w - b
            loss = np.sum(weight * residual**2) / (2 * weight.sum())
            objectives.append(loss + alpha * np.abs(w).sum())
        assert objectives[0] == pytest.approx(objectives[1], abs=2e-6 * y.var())


def test_strengths_that_lie_unevenly_are_solved_all_the_same():
    X, y = problems.problem("squares", 4, rows=40, columns=80)
    top = Lasso().path(X, y, n_alphas=1).alphas[0]
    path = Lasso(tol=1e-8).path(X, y, alphas=top * np.array([0.9, 0.899, 0.1, 0.1, 0.0999, 0.01]))
    assert path.converged.all()
    for alpha, coef in zip(path.alphas, path.coefs, strict=True):
        np.testing.assert_allclose(coef, Lasso(alpha, tol=1e-12).fit(X, y).coef_, atol=2e-3)


def test_more_columns_than_products_are_kept_of():
    rng = np.random.default_rng(0)
    X = 30 * np.eye(2100) + 0.1 * rng.standard_normal((2100, 2100))
    y = X @ rng.choice([-1.0, 1.0], 2100)
    path = Lasso(tol=1e-8).path(X, y, n_alphas=3, eps=1e-3)
    assert path.converged.all()
    assert np.count_nonzero(path.coefs[-1]) > 2048  # the most that products are kept of
    found = gap(X, y, path.coefs[-1], path.intercepts[-1], path.alphas[-1], 1.0, False)
    assert found == pytest.approx(path.criteria[-1], abs=1e-9)


def test_a_second_path_over_the_same_problem_starts_anew():
    X, y = problems.problem("squares", 5, rows=40, columns=80)
    problem = Problem.build(X, y, Squares(), L1L2(1.0))
    alphas = alpha_max(problem) * np.geomspace(1, 0.02, 8)
    one, other = (solve_path(problem, alphas, CoordinateDescent(tol=1e-9)) for _ in range(2))
    np.testing.assert_allclose(one.coefs, other.coefs, atol=1e-3)
    assert other.converged.all()


class TestEnds:
    def test_before_more_features_than_asked_for(self):
        X, y = problems.problem("squares", 3, rows=60, columns=30)
        whole = Lasso().path(X, y)
        counts = np.count_nonzero(whole.coefs, axis=1)
        ended = Lasso().path(X, y, max_features=4)
        assert len(ended.alphas) == np.argmax(counts > 4)
        np.testing.assert_array_equal(ended.coefs, whole.coefs[: len(ended.alphas)])
        with pytest.raises(OptionError, match=r"max_features is 1, but .* at the largest strength"):
            Lasso().path(X, y, alphas=[whole.alphas[-1]], max_features=1)

    def test_rows_of_several_outputs_count_once(self):
        X, y = problems.problem("tasks", 3, rows=60, columns=30)
        path = MultiTaskLasso().path(X, y, max_features=4)
        assert 1 < np.any(path.coefs[-1] != 0, axis=1).sum() <= 4

    @pytest.mark.parametrize("datafit", ["squares", "logistic", "poisson"])
    def test_with_the_first_strength_that_explains_enough(self, datafit):
        X, y = problems.problem(datafit, 3, rows=60, columns=30)
        model = SparseGLM(problems.DATAFITS[datafit])
        whole = model.path(X, y)
        explained = []
        for alpha in whole.alphas:
            fitted = SparseGLM(problems.DATAFITS[datafit], alpha=alpha, tol=1e-9).fit(X, y)
            explained.append(fitted.score(X, y))
        ended = model.path(X, y, max_explained=0.5)
        assert len(ended.alphas) == 1 + np.argmax(np.array(explained) >= 0.5)

    @pytest.mark.parametrize(
        "wrong", [{"max_features": 0}, {"max_features": 2.5}, {"max_explained": 1.1}]
    )
    def test_wrong_limits_are_named(self, wrong):
        X, y = problems.problem("squares", 3, rows=60, columns=30)
        with pytest.raises(OptionError, match=next(iter(wrong))):
            Lasso().path(X, y, **wrong)
