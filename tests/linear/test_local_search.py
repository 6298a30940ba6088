"""Local search for the L0 penalty: no move of one column may lower the objective."""

import itertools

import numpy as np
import pytest
from scipy import sparse

from thresher.core.errors import OptionError
from thresher.linear import SparseGLM
from thresher.solve.penalties import L0, L1
from thresher.solve.solvers import CoordinateDescent, LocalSearch, Problem

from . import problems

COLUMNS = 12
STRENGTHS = {"squares": 0.05, "huber": 0.03, "logistic": 0.02, "poisson": 0.01, "cox": 0.02}


def neighbours(name, seed, rho=0.9, rows=80):
    """Return a problem whose neighbouring columns correlate by `rho`."""
    rng = np.random.default_rng(seed)
    powers = rho ** np.abs(np.subtract.outer(np.arange(COLUMNS), np.arange(COLUMNS)))
    X = rng.standard_normal((rows, COLUMNS)) @ np.linalg.cholesky(powers).T
    coef = np.zeros(COLUMNS)
    coef[::4] = rng.choice([-1, 1], 3) * rng.uniform(0.5, 1.5, 3)
    return X, problems.target(name, X @ coef, rng)


def objective(problem, coef, intercept):
    return problem.objective(coef, problem.predict(coef, np.asarray(intercept)))


def refitted(problem, support, strength):
    """Return the objective of the best fit on a support."""
    matrix = problem.design.matrix[:, support] if support else 0 * problem.design.matrix[:, :1]
    positive = problem.penalty.positive
    free = L1(0.0, positive=positive)
    part = Problem.build(matrix, problem.y, problem.datafit, free, problem.weight)
    found = CoordinateDescent(tol=1e-9).solve(part)
    used = [j for j, value in zip(support, found.coef, strict=False) if value]
    return objective(part, found.coef, found.intercept) + np.sum(strength[used])


def moves(support):
    others = [j for j in range(COLUMNS) if j not in support]
    for out in support:
        yield [j for j in support if j != out]
    for new in others:
        yield [*support, new]
    for out, new in itertools.product(support, others):
        yield [*(j for j in support if j != out), new]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", STRENGTHS)
def test_no_move_of_one_column_is_better(name, seed):
    X, y = neighbours(name, seed)
    penalty = L0(STRENGTHS[name])
    problem = Problem.build(X, y, problems.DATAFITS[name], penalty)
    model = SparseGLM(problems.DATAFITS[name], penalty).fit(X, y)
    reached = objective(problem, model.coef_, model.intercept_)
    strength = np.full(COLUMNS, penalty.alpha)
    support = list(np.flatnonzero(model.coef_))
    assert support
    others = [refitted(problem, other, strength) for other in moves(support)]
    assert reached <= min(others) + 1e-6 * abs(reached)


def test_descent_alone_stops_earlier():
    worse = 0
    for seed in range(10):
        X, y = neighbours("squares", seed)
        problem = Problem.build(X, y, problems.DATAFITS["squares"], L0(0.05))
        alone, searched = (kind().solve(problem) for kind in (CoordinateDescent, LocalSearch))
        reached = [objective(problem, s.coef, s.intercept) for s in (alone, searched)]
        assert reached[1] <= reached[0] + 1e-12
        worse += reached[1] < 0.999 * reached[0]
    assert worse >= 5


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("layout", [np.asarray, sparse.csc_array])
def test_weights_signs_and_sparse_designs(layout, positive):
    X, y = neighbours("squares", 1)
    rng = np.random.default_rng(0)
    factors = rng.uniform(0.5, 2, COLUMNS)
    factors[3] = 0.0  # costs nothing
    penalty = L0(0.05, weights=factors, positive=positive)
    weight = rng.random(len(y))
    problem = Problem.build(X, y, problems.DATAFITS["squares"], penalty, weight)
    model = SparseGLM(penalty=penalty).fit(layout(X), y, sample_weight=weight)
    assert not positive or model.coef_.min() >= 0
    reached = objective(problem, model.coef_, model.intercept_)
    support = list(np.flatnonzero(model.coef_))
    others = [refitted(problem, other, 0.05 * factors) for other in moves(support)]
    assert reached <= min(others) + 1e-6 * abs(reached)


def test_float32_and_more_columns_than_rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 200)).astype(np.float32)
    X[:, 1] = X[:, 0]
    X[:, 2] = 1.0
    y = X[:, [0, 10, 20]].sum(axis=1) + 0.1 * rng.standard_normal(40)
    model = SparseGLM(penalty=L0(0.05)).fit(X, y)
    assert model.coef_.dtype == np.float32
    assert set(np.flatnonzero(model.coef_)) in ({0, 10, 20}, {1, 10, 20})


def test_other_penalties_are_refused():
    X, y = neighbours("squares", 0)
    with pytest.raises(OptionError, match="the penalty is not L0; use CoordinateDescent"):
        SparseGLM(penalty=L1(0.1), solver=LocalSearch()).fit(X, y)
