"""Optimality conditions after every fit, for every pair of datafit and penalty."""

import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from thresher.core.errors import OptionError
from thresher.linear import datafits, penalties
from thresher.solve.path import alpha_max
from thresher.solve.solvers import (
    CoordinateDescent,
    GroupDescent,
    Problem,
    ProximalGradient,
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
    "classes": 1e-8,
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
    # Classes tell only differences apart: what all of them share of a column is left to drift.
    ("classes", "multinomial", "non-negative"),
    # Its distance from optimality is measured by a longer step than the solver takes, and the
    # prices of pieces jump: a fixed point of the short steps need not be one of the long.
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
@settings(max_examples=3, deadline=None, derandomize=True, phases=[Phase.generate])
def test_solvers_reach_a_stationary_point(
    solver, name, key, seed, share, mean, weighted, layout, intercept
):
    if name.startswith("cox") and not intercept:
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
