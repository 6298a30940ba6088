"""Coefficients between bounds: optimal there, in every form of data, and refused where wrong."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import lsq_linear, minimize

from thresher.core.errors import OptionError
from thresher.linear import (
    ElasticNet,
    ElasticNetCV,
    Lasso,
    LassoCV,
    SparseGLM,
    SparseLogistic,
    datafits,
    penalties,
    solvers,
)
from thresher.solve.problem import Problem

from . import problems

RNG = np.random.default_rng(0)
X = RNG.standard_normal((80, 12)) @ (np.eye(12) + 0.3)
Y = X[:, :4] @ [2.0, -2.0, 0.5, -0.5] + 0.5 * RNG.standard_normal(80)
LOWER, UPPER = RNG.uniform(-1, 0, 12), RNG.uniform(0, 1, 12)
UPPER[0] = 0.0
LOWER[2], UPPER[3] = -np.inf, np.inf
forms = pytest.mark.parametrize("form", [np.asarray, np.float32, sparse.csr_array])


@forms
@pytest.mark.parametrize("intercept", [True, False])
def test_without_a_penalty_it_is_bounded_least_squares(form, intercept):
    model = Lasso(1e-9, bounds=(LOWER, UPPER), fit_intercept=intercept, tol=1e-8)
    model.fit(form(X), Y)
    columns = np.column_stack([X, np.ones(80)]) if intercept else X
    ends = (np.r_[LOWER, -np.inf], np.r_[UPPER, np.inf]) if intercept else (LOWER, UPPER)
    ends[1][0] = 1e-9  # what scipy asks for: some room
    peer = lsq_linear(columns, Y, ends, tol=1e-14).x
    np.testing.assert_allclose(model.coef_, peer[:12], atol=1e-3)
    assert np.all((model.coef_ >= LOWER - 1e-6) & (model.coef_ <= UPPER + 1e-6))


@pytest.mark.parametrize("name", ["squares", "logistic", "poisson", "huber", "squared-hinge"])
def test_other_losses_reach_what_a_general_solver_does(name):
    X, y = problems.problem(name, 4, rows=60, columns=6)
    loss, weight = problems.DATAFITS[name], np.full(60, 1 / 60)
    penalty = penalties.Bounded(0.01, ridge=0.1, lower=-0.15, upper=0.1)
    model = SparseGLM(loss, penalty, tol=1e-9).fit(X, y)

    def split(v):  # a coefficient is the difference of two that are not negative
        z = X @ (v[:6] - v[6:12]) + v[12]
        slope = loss.gradient(y, z, weight)
        down = X.T @ slope
        coef = v[:6] - v[6:12]
        value = loss.value(y, z, weight) + 0.01 * v[:12].sum() + 0.05 * coef @ coef
        return value, np.r_[down + 0.1 * coef + 0.01, -down - 0.1 * coef + 0.01, slope.sum()]

    ends = [(0, 0.1)] * 6 + [(0, 0.15)] * 6 + [(None, None)]
    peer = minimize(split, np.zeros(13), jac=True, bounds=ends, tol=1e-14).x
    np.testing.assert_allclose(model.coef_, peer[:6] - peer[6:12], atol=2e-4)
    assert np.any(np.isin(model.coef_, [-0.15, 0.1]))


@forms
def test_paths_keep_to_the_bounds_and_begin_where_all_vanishes(form):
    for model in (Lasso(bounds=(LOWER, UPPER)), ElasticNet(l1_ratio=0.7, bounds=(-0.2, 0.3))):
        lower, upper = model.bounds
        path = model.path(form(X), Y, n_alphas=15, eps=1e-4)
        assert path.converged.all()
        assert not path.coefs[0].any()
        assert path.coefs[1].any()
        slack = 1e-6 if form is np.float32 else 0.0
        assert np.all((path.coefs >= np.asarray(lower) - slack) & (path.coefs <= upper + slack))


def test_the_compiled_descent_agrees_with_gradient_steps():
    penalty = penalties.Bounded(0.05, ridge=0.02, lower=LOWER, upper=UPPER)
    for name in ("squares", "logistic"):
        y = Y if name == "squares" else np.sign(Y)
        problem = Problem.build(X, y, problems.DATAFITS[name], penalty)
        found = [
            kind(tol=1e-9, max_iter=20_000).solve(problem)
            for kind in (solvers.CoordinateDescent, solvers.ProximalGradient)
        ]
        np.testing.assert_allclose(found[0].coef, found[1].coef, atol=1e-5)


def test_nearly_dependent_columns():
    # Newton steps on the support meet the bounds as well.
    wide = np.column_stack([X[:, [j]] + 1e-4 * RNG.standard_normal((80, 20)) for j in range(4)])
    model = Lasso(1e-4, bounds=(-0.05, 0.08), tol=1e-8, max_iter=5000).fit(wide, Y)
    assert model.coef_.max() <= 0.08
    assert model.coef_.min() >= -0.05
    peer = lsq_linear(np.column_stack([wide, np.ones(80)]), Y, (-0.05, 0.08))
    ours = np.mean((Y - model.predict(wide)) ** 2)
    assert ours <= np.mean((Y - np.column_stack([wide, np.ones(80)]) @ peer.x) ** 2) + 1e-2


def test_warm_starts_from_outside_and_cross_validation():
    model = Lasso(0.01, warm_start=True).fit(X, Y)
    model.set_params(bounds=(-0.5, 0.5)).fit(X, Y)
    np.testing.assert_allclose(
        model.coef_, Lasso(0.01, bounds=(-0.5, 0.5)).fit(X, Y).coef_, atol=1e-4
    )
    for chosen in (LassoCV(bounds=(-0.5, 0.5)), ElasticNetCV(bounds=(-0.5, 0.5))):
        assert np.abs(chosen.set_params(alphas=5, cv=3).fit(X, Y).coef_).max() <= 0.5


def test_signs_and_bounds_go_together():
    one = Lasso(0.01, positive=True, bounds=(-1, 0.3)).fit(X, Y).coef_
    np.testing.assert_allclose(one, Lasso(0.01, bounds=(0, 0.3)).fit(X, Y).coef_, atol=1e-5)
    assert one.min() == 0
    assert one.max() == 0.3


def test_classes_by_their_penalty():
    penalty = penalties.Bounded(lower=-0.2, upper=0.2)
    for y in (Y > 0, np.digitize(Y, [-1, 1])):
        coef = SparseLogistic(0.01, penalty=penalty).fit(X, y).coef_
        assert np.abs(coef).max() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ((0.1, 1.0), "the lower bound of coefficients must be a number of at most 0"),
        ((-1.0, -0.1), "the upper bound of coefficients must be a number of at least 0"),
        ((-1.0, np.nan), "the upper bound"),
        (("low", 1.0), "the lower bound"),
        ((np.full((2, 2), -1.0), 1.0), "the lower bound"),
        ((LOWER[:5], 1.0), r"lower has shape \(5,\), the coefficients have \(12,\)"),
        (0.5, r"bounds must be a pair \(lower, upper\)"),
        ((-1, 0, 1), "bounds must be a pair"),
        ("ab", "bounds must be a pair"),
    ],
)
def test_wrong_bounds_are_named(bounds, said):
    with pytest.raises(OptionError, match=said):
        Lasso(0.1, bounds=bounds).fit(X, Y)


def test_norms_of_blocks_have_none():
    for make in (penalties.Rows, lambda radial: penalties.Grouped(radial, np.arange(4) // 2)):
        with pytest.raises(OptionError, match="Bounded is for coefficients, not for norms"):
            make(penalties.Bounded())


def test_it_is_known_by_its_datafit_as_any_penalty():
    assert SparseGLM(datafits.Squares(), penalties.Bounded(lower=0)).fit(X, Y).coef_.min() >= 0
