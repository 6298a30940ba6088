"""Least angle regression and the Lasso's exact path: against scikit-learn, our Lasso, and ties."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning

from thresher.core.errors import OptionError
from thresher.linear import LARS, Lasso, lars_path


def problem(seed, rows, columns, alike=1.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, columns)) + alike * rng.standard_normal((rows, 1))
    return X, X[:, :5] @ [1, 2, -1, 1, 3] + 0.5 * rng.standard_normal(rows) + 4


def objective(X, y, coef, intercept, alpha):
    residual = y - X @ coef - intercept
    return residual @ residual / (2 * len(y)) + alpha * np.abs(coef).sum()


@pytest.mark.parametrize("layout", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("shape", [(60, 20), (40, 100), (100, 100)])
@pytest.mark.parametrize("seed", range(3))
def test_the_knots_of_the_lasso_are_those_of_scikit_learn(seed, shape, layout):
    X, y = problem(seed, *shape)
    ours = lars_path(layout(X), y)
    alphas, _, coefs = linear_model.lars_path(
        X - X.mean(axis=0), y - y.mean(), method="lasso", max_iter=2000
    )
    assert len(ours.alphas) == len(alphas)
    np.testing.assert_allclose(ours.alphas, alphas, atol=1e-8)
    np.testing.assert_allclose(ours.coefs, coefs.T, atol=1e-8)
    assert ours.converged.all()
    assert ours.criteria.max() < 1e-12


@pytest.mark.parametrize("seed", [0, 1, 2, 5])
def test_least_angle_regression_agrees_with_scikit_learn(seed):
    X, y = problem(seed, 60, 20, alike=0.3)
    ours = lars_path(X, y, method="lar")
    alphas, _, coefs = linear_model.lars_path(X - X.mean(axis=0), y - y.mean(), method="lar")
    np.testing.assert_allclose(ours.alphas, alphas, atol=1e-8)
    np.testing.assert_allclose(ours.coefs, coefs.T, atol=1e-8)


@pytest.mark.parametrize("seed", range(4, 7))
def test_the_columns_of_the_model_share_the_largest_correlation(seed):
    # The definition itself: here some of scikit-learn's paths climb, and miss least squares.
    X, y = problem(seed, 40, 100)
    path = lars_path(X, y, method="lar")
    assert np.all(np.diff(path.alphas) < 0)
    assert np.array_equal(np.count_nonzero(path.coefs, axis=1), np.arange(len(path.alphas)))
    for alpha, coef, intercept in zip(path.alphas, path.coefs, path.intercepts, strict=True):
        pull = np.abs(X.T @ (y - X @ coef - intercept)) / len(y)
        assert pull.max() == pytest.approx(alpha, abs=1e-12)
        np.testing.assert_allclose(pull[coef != 0], alpha, atol=1e-12)


@pytest.mark.parametrize("intercept", [True, False])
def test_every_knot_is_what_the_lasso_finds_there(intercept):
    X, y = problem(7, 50, 30)
    weight = np.random.default_rng(0).random(50)
    path = lars_path(X, y, fit_intercept=intercept, sample_weight=weight)
    for alpha, coef, constant in zip(path.alphas, path.coefs, path.intercepts, strict=True):
        model = Lasso(alpha, fit_intercept=intercept, tol=1e-14).fit(X, y, weight)
        np.testing.assert_allclose(model.coef_, coef, atol=2e-6)
        assert model.intercept_ == pytest.approx(constant, abs=1e-5)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("intercept", [True, False])
def test_ties_duplicates_and_constant_columns(seed, intercept):
    # Whole numbers: several columns reach the same correlation at once, again and again.
    rng = np.random.default_rng(seed)
    X = rng.integers(-1, 2, (rng.integers(1, 12), rng.integers(1, 12))).astype(float)
    if X.shape[1] > 3:
        X[:, 1], X[:, 2] = X[:, 0], 1.0
    y = rng.integers(-3, 4, len(X)).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = lars_path(X, y, fit_intercept=intercept)
    assert path.criteria.max() < 1e-12
    for alpha, coef, constant in zip(path.alphas, path.coefs, path.intercepts, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = Lasso(alpha, fit_intercept=intercept, tol=1e-12).fit(X, y)
        reached = objective(X, y, coef, constant, alpha)
        assert reached <= objective(X, y, model.coef_, model.intercept_, alpha) + 1e-9


@pytest.mark.parametrize("layout", [np.asarray, sparse.csc_array])
@pytest.mark.parametrize("scale_x", [1e-150, 1e150])
@pytest.mark.parametrize("scale_y", [1e-150, 1e150])
def test_huge_and_tiny_units(layout, scale_x, scale_y):
    X, y = problem(8, 30, 10)
    path = lars_path(layout(X * scale_x), y * scale_y)
    coefs = path.coefs * scale_x / scale_y
    np.testing.assert_allclose(coefs, lars_path(X, y).coefs, atol=1e-12)


def test_the_path_ends_where_it_is_told_to():
    X, y = problem(9, 50, 30)
    whole = lars_path(X, y)
    alpha = (whole.alphas[6] + whole.alphas[7]) / 2
    part = lars_path(X, y, alpha_min=alpha)
    np.testing.assert_allclose(part.alphas, [*whole.alphas[:7], alpha])
    np.testing.assert_allclose(part.coefs[-1], Lasso(alpha, tol=1e-14).fit(X, y).coef_, atol=1e-6)
    model = LARS(4, method="lasso").fit(X, y)
    assert np.count_nonzero(model.coef_) == len(model.support_) == 4
    assert model.alpha_ in whole.alphas
    assert len(lars_path(X, np.full(50, 3.0)).alphas) == 1


def test_wrong_options_are_named():
    X, y = problem(9, 50, 30)
    with pytest.raises(OptionError, match="method must be 'lasso' or 'lar', got 'lars'"):
        lars_path(X, y, method="lars")
    with pytest.raises(
        OptionError, match="alpha_min must be a finite number of at least 0, got -1"
    ):
        lars_path(X, y, alpha_min=-1)
    with pytest.raises(OptionError, match="cannot choose 31 of 30 columns"):
        LARS(31).fit(X, y)
