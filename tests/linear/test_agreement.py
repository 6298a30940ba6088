"""Agreement with scikit-learn and statsmodels to 1e-6, where they minimise the same objective."""

import warnings

import numpy as np
import pytest
from sklearn import linear_model

from thresher.linear import SparseGLM, SparseLogistic, datafits, penalties

statsmodels = pytest.importorskip("statsmodels.api")

FREE = penalties.L1(0.0)


@pytest.fixture(scope="module")
def design():
    rng = np.random.default_rng(0)
    return rng, rng.standard_normal((120, 6)), np.array([1.0, -0.8, 0.5, 0.0, 0.0, 0.3])


def fit(X, y, datafit, penalty=FREE, tol=1e-13):
    return SparseGLM(datafit, penalty, tol=tol, max_iter=10_000).fit(X, y)


def agree(ours, coef, intercept=None, atol=1e-6):
    np.testing.assert_allclose(ours.coef_, coef, atol=atol, rtol=0)
    if intercept is not None:
        np.testing.assert_allclose(ours.intercept_, intercept, atol=atol, rtol=0)


@pytest.mark.parametrize("ties", [False, True])
def test_cox_without_penalty(design, ties):
    _, X, coef = design
    rng = np.random.default_rng(1)
    times = 0.1 + rng.exponential(np.exp(-X @ coef))
    times = np.ceil(4 * times) if ties else times
    seen = rng.random(len(times)) < 0.7
    ours = fit(X, np.where(seen, times, -times), datafits.Cox())
    peer = statsmodels.PHReg(times, X, status=seen.astype(int), ties="breslow").fit()
    agree(ours, peer.params)


def test_cox_elastic_net(design):
    _, X, coef = design
    rng = np.random.default_rng(2)
    times = 0.1 + rng.exponential(np.exp(-X @ coef))
    seen = rng.random(len(times)) < 0.7
    strength, share = 0.05, 0.6
    penalty = penalties.L1L2(strength * share, ridge=strength * (1 - share))
    ours = fit(X, np.where(seen, times, -times), datafits.Cox(), penalty)
    peer = statsmodels.PHReg(times, X, status=seen.astype(int), ties="breslow").fit_regularized(
        alpha=strength, L1_wt=share, cnvrg_tol=1e-12, maxiter=10_000, zero_tol=1e-12
    )
    agree(ours, peer.params)


@pytest.mark.parametrize("link", ["log", "identity"])
def test_poisson(design, link):
    rng, X, coef = design
    if link == "log":
        y = rng.poisson(np.exp(0.5 * X @ coef + 0.3))
        family, datafit = statsmodels.families.Poisson(), datafits.Poisson()
    else:
        X = np.abs(X)
        y = rng.poisson(X @ np.abs(coef) + 2.0)
        identity = statsmodels.families.links.Identity()
        family, datafit = statsmodels.families.Poisson(identity), datafits.PoissonIdentity(1e-10)
    ours = fit(X, y, datafit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the identity link does not keep all means positive
        peer = statsmodels.GLM(y, statsmodels.add_constant(X), family).fit(tol=1e-14, maxiter=500)
    agree(ours, peer.params[1:], peer.params[0])


def test_huber(design):
    rng, X, coef = design
    y = X @ coef + rng.standard_t(2, len(X)) + 1.0
    ours = fit(X, y, datafits.Huber(1.35))
    norm = statsmodels.robust.norms.HuberT(1.35)
    # The residuals of RLM are in units of a scale, which is held at one.
    peer = _rlm_of_unit_scale(y, statsmodels.add_constant(X), norm)
    agree(ours, peer[1:], peer[0])


def _rlm_of_unit_scale(y, X, norm):
    """Return the M-estimate by the reweighting that statsmodels' norm defines, at scale one."""
    params = np.linalg.lstsq(X, y, rcond=None)[0]
    for _ in range(10_000):
        weights = norm.weights(y - X @ params)
        moved = statsmodels.WLS(y, X, weights).fit().params
        if np.max(np.abs(moved - params)) < 1e-13:
            break
        params = moved
    return moved


@pytest.mark.parametrize("quantile", [0.3, 0.5, 0.8])
def test_quantile(design, quantile):
    rng, X, coef = design
    y = X @ coef + rng.standard_normal(len(X))
    # A narrow rounding leaves the corner that the linear programme finds.
    ours = fit(X, y, datafits.SmoothQuantile(quantile, 1e-6), tol=1e-10)
    peer = linear_model.QuantileRegressor(quantile=quantile, alpha=0.0, solver="highs").fit(X, y)
    agree(ours, peer.coef_, peer.intercept_)
    reweighted = statsmodels.QuantReg(y, statsmodels.add_constant(X)).fit(
        quantile, max_iter=10_000, p_tol=1e-10
    )
    np.testing.assert_allclose(ours.coef_, reweighted.params[1:], atol=1e-4)


def test_square_root_lasso(design):
    rng, X, coef = design
    y = X @ coef + 0.5 * rng.standard_normal(len(X))
    ours = fit(X, y, datafits.SquareRoot(), penalties.L1(0.15))
    # statsmodels' own needs a solver under the GPL. Where the residual is not zero, the optimality
    # conditions are those of the Lasso whose strength is multiplied by its root mean square.
    spread = np.sqrt(np.mean((y - ours.predict(X)) ** 2))
    peer = linear_model.Lasso(0.15 * spread, tol=1e-14, max_iter=100_000).fit(X, y)
    assert 0 < np.count_nonzero(peer.coef_) < len(coef)
    agree(ours, peer.coef_, peer.intercept_)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_logistic(design, share):
    rng, X, coef = design
    y = (X @ coef + rng.logistic(size=len(X)) > 0).astype(int)
    ours = SparseLogistic(0.02, share, tol=1e-14).fit(X, y)
    peer = linear_model.LogisticRegression(
        C=1 / (0.02 * len(y)), l1_ratio=share, solver="saga", tol=1e-12, max_iter=1_000_000
    ).fit(X, y)
    agree(ours, peer.coef_, peer.intercept_)


def test_multinomial(design):
    rng, X, coef = design
    scores = np.outer(X @ coef, [1.0, -1.0, 0.5]) + rng.gumbel(size=(len(X), 3))
    y = scores.argmax(axis=1)
    ours = SparseLogistic(0.02, 0.5, tol=1e-13, max_iter=20_000).fit(X, y)
    peer = linear_model.LogisticRegression(
        C=1 / (0.02 * len(y)), l1_ratio=0.5, solver="saga", tol=1e-12, max_iter=1_000_000
    ).fit(X, y)
    # Constants that are the same for all classes change nothing.
    agree(ours, peer.coef_)
    centred = [fitted.intercept_ - np.mean(fitted.intercept_) for fitted in (ours, peer)]
    np.testing.assert_allclose(*centred, atol=1e-6)
