"""Optimality conditions after every fit, for every pair of datafit and penalty."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, sparse, special
from sklearn.exceptions import ConvergenceWarning

from thresher.core.errors import OptionError
from thresher.linear import SparseGLM, datafits, penalties
from thresher.linear.path import alpha_max
from thresher.linear.solvers import (
    CoordinateDescent,
    GroupDescent,
    Problem,
    ProximalGradient,
    Solution,
    Solver,
)

from . import problems

COLUMNS = 9
PENALTIES = problems.every_penalty(COLUMNS)
# Gradient methods take steps by the thousand for what coordinate descent reaches in a few rounds,
# and a Frank-Wolfe gap falls as the inverse of the number of steps.
TOLERANCES = {
    "coordinates": 1e-10,
    "groups": 1e-10,
    "local-search": 1e-10,
    "greedy-blocks": 1e-7,
    "proximal-gradient": 1e-6,
    "accelerated-concave": 1e-6,
    "spiral": 1e-5,
    "frank-wolfe": 1e-2,
}
# Pairs on which the steps of a solver are known not to suffice: the boundary of the counts is as
# steep as 10^4, which gradient steps feel.
SLOW = {
    ("proximal-gradient", "poisson-identity"),
    ("frank-wolfe", "poisson-identity"),
    # Once its few classes are separated, a penalty with a flat top has no minimum.
    ("proximal-gradient", "multinomial", "rows-mcp"),
    # Its distance from optimality is a step of length one, its own steps are shorter, and the
    # prices of pieces jump: a fixed point of these need not be one of that.
    ("proximal-gradient", "any", "partition"),
}


def features(solver: str, rng_seed: int, name: str, mean: float):
    """Return a random problem; SPIRAL takes intensities only, which are not negative."""
    X, y = problems.problem(name, rng_seed, rows=40, columns=COLUMNS, mean=mean)
    return (np.abs(X), y) if solver == "spiral" else (X, y)


def refusal(problem: Problem, solver) -> str | None:
    if not problem.datafit.smooth and not solver.takes_kinks:
        return "a kink"
    return problem.penalty.refusal(problem.coef_shape) or solver.refusal(problem)


def takes(solver: str, name: str, key: str) -> bool:
    X, y = features(solver, 0, name, 0.0)
    build = [
        Problem.build(X, y, problems.DATAFITS[name], PENALTIES[key], None, intercept)
        for intercept in (True, False)
    ]
    return not all(refusal(problem, problems.SOLVERS[solver]()) for problem in build)


TRIPLES = [
    (solver, name, key)
    for solver in TOLERANCES
    for name in problems.DATAFITS
    for key in PENALTIES
    if takes(solver, name, key)
]


def strength(problem: Problem, share: float) -> float:
    """Return a strength that leaves a few coefficients."""
    slope = float(np.max(np.abs(problem.null_gradient)))
    penalty = problem.penalty
    if isinstance(penalty, penalties.L0 | penalties.DyadicPartition):
        return share * slope**2 / 4
    # Of these no strength makes zero optimal, or none is defined by the slope alone.
    free = getattr(penalty, "weights", None) is not None and not np.all(penalty.weights)
    endless = penalties.Lq | penalties.KSupport | penalties.TotalVariation | penalties.HaarL1
    if free or isinstance(penalty, endless):
        return share * slope
    if isinstance(penalty, penalties.Ball | penalties.NonNegative):
        return 1.0
    return share * alpha_max(problem)


def solver_of(penalty, **options):
    kind = CoordinateDescent if isinstance(penalty, penalties.Separable) else GroupDescent
    return kind(tol=1e-7, **options)


def allowance(problem: Problem, solution, tol: float) -> float:
    """Return the largest violation that the stopping rule of the solver lets stand."""
    scale = float(np.max(np.abs(problem.null_gradient)))
    if solution.kind == "optimality violation":
        return (1.001 * tol + 1e-10) * scale  # as said, measured anew
    # One proximal step of a block lowers the objective by violation^2 / (2 curvature) or more,
    # and no step by more than the gap.
    loss = abs(problem.datafit.value(problem.y, problem.null_prediction, problem.weight))
    prediction = problem.predict(solution.coef, solution.intercept)
    bend = problem.datafit.curvature(problem.y, prediction, problem.weight)
    curvature = problem.design.moments(bend, problem.intercept)[1]
    block = np.sort(curvature)[-3:].sum()
    return 2 * np.sqrt(2 * tol * loss * block) + 1e-10 * scale


def linear_gap(problem: Problem, coef: np.ndarray, prediction: np.ndarray) -> float:
    """Return the most that a linear model of the loss can gain inside a ball."""
    gradient = problem.gradient(prediction).astype(float)
    return float(np.sum(gradient * (coef - problem.penalty.atom(gradient))))


def test_every_datafit_penalty_and_solver_is_in_the_tables():
    tables = {
        datafits.Datafit: problems.DATAFITS,
        penalties.Penalty: PENALTIES,
        Solver: problems.SOLVERS,
    }
    for base, table in tables.items():
        there = {value if isinstance(value, type) else type(value) for value in table.values()}
        assert problems.concrete_subclasses(base) <= there


def test_every_pair_that_fits_together_is_taken_by_a_solver():
    solved = {pair for _, *pair in TRIPLES for pair in [tuple(pair)]}
    for name, datafit in problems.DATAFITS.items():
        for key, penalty in PENALTIES.items():
            shape = (COLUMNS, 3) if datafit.multiple_outputs else (COLUMNS,)
            fits = datafit.smooth and penalty.refusal(shape) is None
            assert ((name, key) in solved) == fits, (name, key)


@pytest.mark.parametrize(("solver", "name", "key"), TRIPLES)
@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.2, 0.9),
    mean=st.sampled_from([0.0, 3.0]),
    weighted=st.booleans(),
    layout=st.sampled_from(["dense", "csc"]),
    intercept=st.booleans(),
)
@settings(max_examples=5, deadline=None, derandomize=True, phases=[Phase.generate])
def test_solvers_reach_a_stationary_point(
    solver, name, key, seed, share, mean, weighted, layout, intercept
):
    if name == "cox" and not intercept:
        mean = 0.0  # the bound of its curvature is far too large for columns that are not centred
    X, y = features(solver, seed, name, mean)
    weight = np.random.default_rng(seed + 1).random(len(y)) + 0.1 if weighted else None
    X = sparse.csc_array(X) if layout == "csc" else X
    penalty, tol = PENALTIES[key], TOLERANCES[solver]
    problem = Problem.build(X, y, problems.DATAFITS[name], penalty, weight, intercept)
    slow = bool({(solver, name), (solver, name, key), (solver, "any", key)} & SLOW)
    rounds = {"max_iter": 1000} if slow else {}
    descent = problems.SOLVERS[solver](tol=tol, **rounds)
    assume(refusal(problem, descent) is None)  # SPIRAL fits no intercept
    problem = problem.with_penalty(penalty.scaled(strength(problem, share)))
    solution = descent.solve(problem)
    # Where classes come apart, a penalty that does not grow leaves coefficients without end.
    assume(np.max(np.abs(solution.coef)) < 50)
    prediction = problem.predict(solution.coef, solution.intercept)
    scale = float(np.max(np.abs(problem.null_gradient)))
    violation = problem.violation(solution.coef, prediction)
    if not solution.converged:
        assert slow
        # What is stated in the warning is what was left.
        measured = violation / scale if solution.kind == "optimality violation" else 0.0
        assert measured <= 1.001 * solution.criterion
    elif solver == "frank-wolfe":
        loss = abs(problem.datafit.value(y, problem.null_prediction, problem.weight))
        assert linear_gap(problem, solution.coef, prediction) <= (tol + 1e-9) * loss
    else:
        assert violation <= allowance(problem, solution, tol)
    start = np.zeros_like(solution.coef)
    at_zero = problem.objective(start, problem.null_prediction)
    assert problem.objective(solution.coef, prediction) <= at_zero + 1e-9 * abs(at_zero)


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
    for key, penalty in (problems.SEPARABLE | problems.grouped(12)).items():
        if key == "non-negative":
            continue  # has no strength
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


SHIFTED = [d for d in problems.DATAFITS.values() if d.shift_equivariant and d.smooth]


@pytest.mark.parametrize("datafit", SHIFTED, ids=lambda datafit: type(datafit).__name__)
@pytest.mark.parametrize("shift", [1e9, 1e11])
def test_a_large_mean_of_the_target_changes_the_intercept_alone(datafit, shift):
    X, y = problems.problem("tasks" if datafit.multiple_outputs else "squares", 0)
    penalty = penalties.Rows(penalties.L1(0.1)) if datafit.multiple_outputs else penalties.L1(0.1)
    far = y + shift
    one, other = (
        SparseGLM(datafit, penalty, tol=1e-10).fit(X, target) for target in (far - shift, far)
    )
    assert np.count_nonzero(one.coef_)
    assert other.criterion_ >= 0
    np.testing.assert_allclose(other.coef_, one.coef_, atol=1e-6)
    np.testing.assert_allclose(other.intercept_ - shift, one.intercept_, atol=1e-15 * shift + 1e-6)


@pytest.mark.parametrize("datafit", SHIFTED, ids=lambda datafit: type(datafit).__name__)
@pytest.mark.parametrize(("rows", "level"), [(50, 0.0), (50, 1e11 + 0.1), (1, 3.0)])
def test_a_constant_target_needs_no_coefficient(datafit, rows, level):
    X = np.random.default_rng(0).standard_normal((rows, 4))
    shape = (rows, 2) if datafit.multiple_outputs else (rows,)
    penalty = penalties.Rows(penalties.L1(0.1)) if datafit.multiple_outputs else penalties.L1(0.1)
    model = SparseGLM(datafit, penalty).fit(X, np.full(shape, level))
    assert not np.any(model.coef_)
    np.testing.assert_allclose(model.predict(X), level, atol=0.15)  # the width of a quantile
