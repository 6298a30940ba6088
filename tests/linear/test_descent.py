"""The descents on problems that are hard for them, each for a reason of its own."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, sparse, special
from sklearn.exceptions import ConvergenceWarning

from thresher.linear import datafits, penalties
from thresher.solve.path import alpha_max
from thresher.solve.solvers import CoordinateDescent, Problem, Solution

from . import problems


def test_same_fit_twice_is_identical():
    X, y = problems.problem("logistic", 0)
    problem = Problem.build(X, y, datafits.Logistic(), penalties.L1(0.05))
    first, second = (CoordinateDescent().solve(problem) for _ in range(2))
    assert np.array_equal(first.coef, second.coef)


def wide(rows: int, columns: int, correlation: float, seed: int = 0):
    """Return neighbours of the given correlation, and a target of a few of them."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, columns))
    for j in range(1, columns):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    return X, X[:, :: columns // 10].sum(axis=1) + 0.5 * rng.standard_normal(rows)


@pytest.mark.parametrize("layout", ["dense", "csc"])
@pytest.mark.parametrize("penalty", [penalties.L1(), penalties.L1L2(ridge=0.1), penalties.MCP()])
def test_working_sets_within_the_nearest_tenth_miss_nothing(penalty, layout):
    X, y = wide(60, 4000, 0.3)
    X = sparse.csc_array(X) if layout == "csc" else X
    problem = Problem.build(X, y, datafits.Squares(), penalty)
    scale = float(np.max(np.abs(problem.null_gradient)))
    problem = problem.with_penalty(penalty.scaled(alpha_max(problem) / 20))
    solution = CoordinateDescent(tol=1e-9).solve(problem)
    assert solution.converged
    violation = problem.violation(solution.coef, problem.predict(solution.coef, solution.intercept))
    assert violation <= 1e-4 * scale


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("positive", [True, False])
def test_nearly_dependent_columns_reach_a_tight_gap(positive, weighted, intercept):
    X, y = wide(80, 200, 0.995)
    weight = np.random.default_rng(1).random(len(y)) + 0.1 if weighted else None
    penalty = penalties.L1(positive=positive)
    problem = Problem.build(X + 2, y, datafits.Squares(), penalty, weight, intercept)
    problem = problem.with_penalty(penalty.scaled(alpha_max(problem) / 1000))
    solution = CoordinateDescent(tol=1e-10).solve(problem)
    assert solution.converged
    assert solution.criterion <= 1e-10


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_counts_of_zero_do_not_stop_the_descent_at_the_boundary(seed, share, intercept):
    rng = np.random.default_rng(seed)
    X = np.abs(rng.standard_normal((60, 20)))
    y = share * rng.poisson(X[:, :3] @ [1.0, 0.5, 0.3] + 0.1).round()
    problem = Problem.build(
        X, y, datafits.PoissonIdentity(0.1), penalties.L1(0.01), intercept=intercept
    )
    solution = CoordinateDescent().solve(problem)
    assert solution.converged
    reached = problem.predict(solution.coef, solution.intercept)
    assert reached.min() > -0.1 - 2e-3
    assert problem.objective(solution.coef, reached) <= _by_programming(problem) + 1e-6


def _by_programming(problem):
    """Return the least objective over means that are not negative, by a general solver."""
    X, y, strength = problem.design.matrix, problem.y, problem.penalty.alpha
    n, p = X.shape
    split = np.hstack([X, -X, np.ones((n, 1)) if problem.intercept else np.zeros((n, 1))])
    background, price = problem.datafit.background, strength * (np.arange(2 * p + 1) < 2 * p)

    def objective(point):
        mean = np.maximum(split @ point + background, 1e-12)
        slope = split.T @ (1 - y / mean) / n
        return np.mean(mean - special.xlogy(y, mean)) + price @ point, slope + price

    start = np.append(np.full(p, 0.1), np.zeros(p + 1))
    inside = {"type": "ineq", "fun": lambda v: split @ v + background, "jac": lambda v: split}
    bounds = [(0, None)] * (2 * p) + [(None, None)]
    return optimize.minimize(
        objective, start, jac=True, method="SLSQP", bounds=bounds, constraints=inside,
        options={"maxiter": 500, "ftol": 1e-12},
    ).fun  # fmt: skip


def test_a_stall_is_told_from_too_few_rounds():
    stalled = Solution(np.zeros(1), np.zeros(()), 0.1, "duality gap", 3, False, stalled=True)
    with pytest.warns(ConvergenceWarning, match=r"stalled after 3 iterations.*; raise alpha"):
        stalled.warn_unless_converged(1e-6)
    short = replace(stalled, stalled=False)
    with pytest.warns(ConvergenceWarning, match=r"scale after 3 iterations.*; raise max_iter"):
        short.warn_unless_converged(1e-6)
