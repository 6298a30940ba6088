"""Starts that the problem does not allow: from them no gap is a bound."""

import numpy as np
import pytest
from sklearn.linear_model import Lasso as Reference

from thresher.linear import ElasticNet, Lasso, SparseGLM, datafits, penalties
from thresher.solve.path import alpha_max
from thresher.solve.solvers import FrankWolfe, Problem, ProximalGradient

from . import problems

COLUMNS = 9
CONSTRAINED = {
    name: penalty
    for name, penalty in problems.every_penalty(COLUMNS).items()
    if penalty.refusal((COLUMNS,)) is None and penalty.value(np.full(COLUMNS, -100.0)) == np.inf
}


def test_the_constrained_are_found():
    assert {"l1-positive", "non-negative", "simplex", "l1-ball", "haar-positive"} <= set(
        CONSTRAINED
    )


def constrained(name):
    X, y = problems.problem("squares", 0, columns=COLUMNS)
    return X, y, Problem.build(X, y, datafits.Squares(), CONSTRAINED[name])


TAKEN = [
    (solver, name)
    for solver in problems.SOLVERS
    for name in CONSTRAINED
    if problems.SOLVERS[solver]().refusal(constrained(name)[2]) is None
]


@pytest.mark.parametrize(("solver", "name"), TAKEN)
def test_an_unconstrained_start_ends_where_a_cold_one_does(solver, name):
    X, y, problem = constrained(name)
    solver = problems.SOLVERS[solver](tol=1e-7)
    cold = solver.solve(problem)
    warm = solver.solve(problem, np.linalg.lstsq(X, y)[0] - 0.5, 3.0)
    assert warm.converged
    reached, best = (
        problem.objective(each.coef, problem.predict(each.coef, each.intercept))
        for each in (warm, cold)
    )
    assert np.isfinite(reached)
    if problem.penalty.convex:
        assert reached == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("estimator", [Lasso, ElasticNet])
@pytest.mark.parametrize("seed", range(3))
def test_a_constraint_added_to_a_warm_model_holds(estimator, seed):
    X, y = problems.problem("squares", seed, columns=COLUMNS)
    model = estimator(0.05, warm_start=True, tol=1e-10).fit(X, y)
    assert model.coef_.min() < 0
    model.set_params(positive=True).fit(X, y)
    cold = estimator(0.05, positive=True, tol=1e-10).fit(X, y)
    np.testing.assert_allclose(model.coef_, cold.coef_, atol=1e-5)
    if estimator is Lasso:
        expected = Reference(0.05, positive=True, tol=1e-12).fit(X, y)
        np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-5)


@pytest.mark.parametrize("penalty", [penalties.NonNegative(), penalties.L1(0.05)])
def test_counts_fitted_again_on_other_features_keep_their_means_positive(penalty):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, COLUMNS))
    y = np.round(np.abs(3 * X[:, 0] + 5))
    model = SparseGLM(datafits.PoissonIdentity(), penalty, warm_start=True).fit(np.abs(X), y)
    model.fit(X, y)
    cold = SparseGLM(datafits.PoissonIdentity(), penalty).fit(X, y)
    assert model.predict(X)[y > 0].min() > 0
    np.testing.assert_allclose(model.coef_, cold.coef_, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_frank_wolfe_keeps_the_loss_finite(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((40, 8)), np.round(np.abs(2 * rng.standard_normal(40) + 1))
    found, expected = (
        SparseGLM(datafits.PoissonIdentity(0.1), penalties.Simplex(), solver=solver).fit(X, y)
        for solver in (FrankWolfe(), ProximalGradient())
    )
    assert found.score(X, y) == pytest.approx(expected.score(X, y), abs=1e-5)


def test_an_infinite_loss_is_never_called_converged():
    # One coefficient of one, no intercept: the mean of the second sample is negative.
    X, y = np.array([[1.0], [-1.0]]), np.array([1.0, 1.0])
    problem = Problem.build(
        X, y, datafits.PoissonIdentity(0.1), penalties.Simplex(), intercept=False
    )
    for solver in (FrankWolfe(max_iter=20), ProximalGradient(max_iter=20)):
        solution = solver.solve(problem)
        assert not solution.converged
        assert solution.criterion == np.inf


def test_a_start_beyond_the_range_of_the_precision_is_not_used():
    X, y = problems.problem("squares", 0, columns=COLUMNS)
    problem = Problem.build(X.astype("float32"), y, datafits.Squares(), penalties.L1())
    problem = problem.with_penalty(penalties.L1(0.1 * alpha_max(problem)))
    solver = problems.SOLVERS["coordinates"]()
    warm, cold = solver.solve(problem, np.full(COLUMNS, 1e100)), solver.solve(problem)
    assert warm.converged
    np.testing.assert_allclose(warm.coef, cold.coef, atol=1e-5)
