"""The compound Gaussian model: its objective, its stationary points, and recovery."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher.core.errors import OptionError
from thresher.linear import CompoundGaussian, penalties


@parametrize_with_checks([CompoundGaussian()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def sensing():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((80, 200))
    x = np.zeros(200)
    x[rng.choice(200, 8, replace=False)] = rng.choice([-1, 1], 8) * rng.uniform(1, 2, 8)
    return A, x, A @ x + 0.01 * rng.standard_normal(80)


def test_recovers_behind_means_and_scales(sensing):
    A, x, y = sensing
    model = CompoundGaussian(1e-3).fit(5 * A + 3.0, 5 * y + 2.0)
    assert np.linalg.norm(model.coef_ - x) < 0.02 * np.linalg.norm(x)
    np.testing.assert_array_equal(np.abs(model.coef_) > 0.1, x != 0)


@pytest.mark.parametrize("rows", [80, 400])
@pytest.mark.parametrize("structured", [False, True])
def test_objective_is_the_stated_one_and_never_rises(rows, structured):
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((rows, 100)), rng.standard_normal(rows)
    X /= np.sqrt(np.mean(X**2, axis=0))
    y /= np.sqrt(np.mean(y**2))
    distance = np.abs(np.subtract.outer(np.arange(100), np.arange(100)))
    covariance = 0.5**distance if structured else np.eye(100)
    model = CompoundGaussian(
        0.02, covariance=covariance if structured else None, fit_intercept=False
    ).fit(X, y)
    assert np.all(np.diff(model.objective_) <= 1e-12)
    z, u = model.scale_, model.texture_
    value = np.mean((y - X @ (z * u)) ** 2) / 2
    value += 0.02 * (u @ np.linalg.solve(covariance, u) / 2 + z.sum())
    # A tall problem is reduced by a rotation, which drops the part of y outside its columns.
    outside = 0.0 if rows <= 100 else np.mean((y - X @ np.linalg.lstsq(X, y)[0]) ** 2) / 2
    assert model.objective_[-1] + outside == pytest.approx(value)


def test_scale_of_a_stationary_point_is_a_power_of_the_coefficient(sensing):
    A, _, y = sensing
    model = CompoundGaussian(1e-2, tol=1e-12, max_iter=5000).fit(A, y)
    z, u = model.scale_, model.texture_
    kept = z > 1e-3
    assert kept.sum() >= 8
    np.testing.assert_allclose(z[kept], np.abs(z * u)[kept] ** (2 / 3), rtol=1e-3)


def test_bad_options(sensing):
    A, _, y = sensing
    with pytest.raises(OptionError, match="alpha must be a finite number above 0, got 0"):
        CompoundGaussian(0.0).fit(A, y)
    with pytest.raises(OptionError, match="admits negative scales"):
        CompoundGaussian(penalty=penalties.L1()).fit(A, y)
    with pytest.raises(OptionError, match="positive definite matrix of shape"):
        CompoundGaussian(covariance=-np.eye(200)).fit(A, y)
    with pytest.warns(ConvergenceWarning, match="the objective still fell"):
        CompoundGaussian(max_iter=1).fit(A, y)
