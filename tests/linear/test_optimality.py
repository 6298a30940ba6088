"""Optimality conditions after every fit, for every pair of datafit and penalty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, special

from thresher.core.errors import OptionError
from thresher.linear import datafits, penalties
from thresher.linear.path import alpha_max
from thresher.linear.solvers import CoordinateDescent, GroupDescent, Problem, ProximalGradient

from . import problems

COLUMNS = 12
PENALTIES = problems.SEPARABLE | problems.grouped(COLUMNS)
drawn = settings(max_examples=6, deadline=None, derandomize=True)


def strength(problem: Problem, share: float) -> float:
    """Return a strength that leaves a few coefficients."""
    slope = float(np.max(np.abs(problem.null_gradient)))
    if isinstance(problem.penalty, penalties.L0):
        return share * slope**2 / 4
    if isinstance(problem.penalty, penalties.Lq):
        return share * slope
    return share * alpha_max(problem)


def solver_of(penalty, **options):
    kind = CoordinateDescent if isinstance(penalty, penalties.Separable) else GroupDescent
    return kind(tol=1e-7, **options)


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES.keys())
@pytest.mark.parametrize("name", problems.DATAFITS)
@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.2, 0.9),
    mean=st.sampled_from([0.0, 3.0]),
    weighted=st.booleans(),
    layout=st.sampled_from(["dense", "csc"]),
    intercept=st.booleans(),
)
@drawn
def test_descent_reaches_a_stationary_point(
    name, penalty, seed, share, mean, weighted, layout, intercept
):
    X, y = problems.problem(name, seed, columns=COLUMNS, mean=mean)
    weight = np.random.default_rng(seed + 1).random(len(y)) + 0.1 if weighted else None
    X = sparse.csc_array(X) if layout == "csc" else X
    problem = Problem.build(X, y, problems.DATAFITS[name], penalty, weight, intercept)
    problem = problem.with_penalty(penalty.scaled(strength(problem, share)))
    solution = solver_of(penalty).solve(problem)
    scale = float(np.max(np.abs(problem.null_gradient)))
    prediction = problem.predict(solution.coef, solution.intercept)
    assert solution.converged
    # A gap of 1e-7 bounds the violation by about its root.
    assert problem.violation(solution.coef, prediction) <= 2e-3 * scale
    at_zero = problem.objective(np.zeros_like(solution.coef), problem.null_prediction)
    assert problem.objective(solution.coef, prediction) <= at_zero + 1e-9 * abs(at_zero)


@pytest.mark.parametrize("penalty", problems.STRUCTURED.values(), ids=problems.STRUCTURED.keys())
@pytest.mark.parametrize("name", ["squares", "huber", "logistic", "poisson"])
@pytest.mark.parametrize("seed", [0, 1])
def test_proximal_gradient_takes_coupled_penalties(name, penalty, seed):
    X, y = problems.problem(name, seed, mean=1.0)
    problem = Problem.build(X, y, problems.DATAFITS[name], penalty.scaled(0.05))
    solution = ProximalGradient(tol=1e-6).solve(problem)
    assert solution.converged
    prediction = problem.predict(solution.coef, solution.intercept)
    best = problem.objective(solution.coef, prediction)
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-1):  # convex: no neighbour is better
        for _ in range(20):
            moved = solution.coef + size * rng.standard_normal(solution.coef.shape)
            constant = solution.intercept + size * rng.standard_normal()
            assert problem.objective(moved, problem.predict(moved, constant)) >= best - 1e-8


@pytest.mark.parametrize("name", ["squares", "logistic", "poisson", "cox"])
@pytest.mark.parametrize("key", ["l1", "elastic-net", "group", "sparse-group"])
def test_two_solvers_agree(name, key):
    penalty = PENALTIES[key]
    X, y = problems.problem(name, 5, columns=COLUMNS, mean=1.0)
    problem = Problem.build(X, y, problems.DATAFITS[name], penalty)
    problem = problem.with_penalty(penalty.scaled(0.3 * alpha_max(problem)))
    one = solver_of(penalty).solve(problem)
    other = ProximalGradient(tol=1e-9).solve(problem)
    np.testing.assert_allclose(one.coef, other.coef, atol=2e-3)
    objectives = [
        problem.objective(s.coef, problem.predict(s.coef, s.intercept)) for s in (one, other)
    ]
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-6)


@pytest.mark.parametrize("multiple", ["tasks", "classes"])
def test_rows_are_zero_together_and_agree_with_proximal_gradient(multiple):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 15)) + 1.0
    scores = X[:, :3] @ rng.standard_normal((3, 4)) + rng.standard_normal((80, 4))
    datafit, y = datafits.MultiTaskSquares(), scores
    if multiple == "classes":
        datafit, y = datafits.Multinomial(), np.eye(4)[scores.argmax(axis=1)]
    problem = Problem.build(X, y, datafit, penalties.Rows(penalties.L1()))
    problem = problem.with_penalty(problem.penalty.scaled(0.2 * alpha_max(problem)))
    solution = GroupDescent(tol=1e-7).solve(problem)
    other = ProximalGradient(tol=1e-8).solve(problem)
    assert solution.converged
    np.testing.assert_allclose(solution.coef, other.coef, atol=2e-3)
    used = solution.coef != 0
    assert np.array_equal(used.any(axis=1), used.all(axis=1))
    assert not used.all()


def test_alpha_max_is_where_the_first_coefficient_enters():
    X, y = problems.problem("squares", 3)
    for penalty in PENALTIES.values():
        if isinstance(penalty, penalties.L0 | penalties.Lq):
            with pytest.raises(OptionError, match="no natural start"):
                alpha_max(Problem.build(X, y, datafits.Squares(), penalty))
            continue
        problem = Problem.build(X, y, datafits.Squares(), penalty)
        top = alpha_max(problem)
        counts = [
            np.count_nonzero(
                solver_of(penalty).solve(problem.with_penalty(penalty.scaled(top * factor))).coef
            )
            for factor in (1 + 1e-6, 0.95)
        ]
        # From zero a concave penalty may be worth leaving below the slope of the loss.
        assert counts[0] == 0 or not penalty.convex
        assert counts[1] > 0


def test_a_pair_that_cannot_be_solved_says_why():
    X, y = problems.problem("squares", 0)
    problem = Problem.build(X, y, datafits.Squares(), penalties.Slope())
    with pytest.raises(OptionError, match="CoordinateDescent cannot solve Squares with Slope"):
        CoordinateDescent().solve(problem)
    with pytest.raises(OptionError, match="no groups"):
        GroupDescent().solve(problem.with_penalty(penalties.L1()))
    groups = np.arange(5)
    with pytest.raises(OptionError, match="5 entries for 12 columns"):
        GroupDescent().solve(problem.with_penalty(penalties.group_lasso(groups)))


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


def test_the_logistic_loss_is_exact_far_from_the_boundary():
    margin = np.array([-800.0, -40.0, -1e-12, 0.0, 0.3, 40.0, 800.0])
    y = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    loss = datafits.Logistic()
    for k, (target, prediction) in enumerate(zip(y, y * margin, strict=True)):
        one = (np.array([target]), np.array([prediction]), np.ones(1))
        assert loss.value(*one) == pytest.approx(np.logaddexp(0, -margin[k]), rel=1e-14)
        slope = -target * special.expit(-margin[k])
        assert loss.gradient(*one) == pytest.approx(slope, rel=1e-14)
        share = special.expit(-margin[k])
        assert loss.curvature(*one) == pytest.approx(share * special.expit(margin[k]), rel=1e-14)
        entropy = special.xlogy(share, share) + special.xlog1py(1 - share, -share)
        assert loss.conjugate(one[0], loss.gradient(*one), one[2]) == pytest.approx(
            entropy, rel=1e-12, abs=1e-15
        )


@pytest.mark.parametrize("offset", [1e7, -1e7])
def test_a_target_far_from_zero_is_centred_before_the_gap_is_measured(offset):
    X, y = problems.problem("squares", 8, columns=COLUMNS)
    far = Problem.build(X, y + offset, datafits.Squares(), penalties.L1())
    far = far.with_penalty(far.penalty.scaled(0.1 * alpha_max(far)))
    near = Problem.build(X, y, datafits.Squares(), far.penalty)
    one, other = (CoordinateDescent(tol=1e-12, max_iter=50).solve(each) for each in (near, far))
    # The gap is a difference of terms as large as the squared target: of `offset` itself they
    # would leave no digit of it.
    assert one.converged
    assert other.converged
    np.testing.assert_allclose(other.coef, one.coef, atol=1e-7)
    assert other.intercept == pytest.approx(one.intercept + offset, abs=1e-6)
