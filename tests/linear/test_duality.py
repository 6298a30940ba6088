"""Duality gaps: conjugates, dual norms, weak duality, and for which pairs there is a gap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from thresher.linear import datafits, penalties
from thresher.solve.datafits import Datafit
from thresher.solve.solvers import (
    CoordinateDescent,
    FrankWolfe,
    GreedyBlocks,
    GroupDescent,
    Problem,
    ProximalGradient,
    Spiral,
)
from thresher.solve.solvers.duality import DualityGap
from thresher.solve.solvers.point import Fit, Point

from . import problems

COLUMNS = 6
PENALTIES = {
    key: penalty for key, penalty in problems.every_penalty(COLUMNS).items() if penalty.convex
}
# Why a convex loss or penalty has no gap; all others must have one.
WITHOUT_CONJUGATE = {
    "cox": "couples the samples: no conjugate in closed form",
    "probit": "its conjugate has no closed form",
    "squared-hinge": "slopes of zero, where its domain ends, are none beside free directions",
    "cox-efron": "the same",
    "tweedie": "a sum of two exponentials: no conjugate in closed form",
}
WITHOUT_RULE = {
    "bounded": "a slope is feasible where a bound is finite, which no factor tells",
    "non-negative": "a slope is feasible if its signs are right, which no factor gives",
    "total-variation-positive": "the same on every piece",
    "haar-positive": "the same on every piece",
}
CONJUGATES = [
    name for name, d in problems.DATAFITS.items() if type(d).conjugate is not Datafit.conjugate
]
anywhere = given(seed=st.integers(0, 10_000))


def shape_of(datafit: Datafit) -> tuple[int, ...]:
    return (COLUMNS, 3) if datafit.multiple_outputs else (COLUMNS,)


def pairs():
    for name, datafit in problems.DATAFITS.items():
        for key, penalty in PENALTIES.items():
            if datafit.smooth and penalty.refusal(shape_of(datafit)) is None:
                yield name, key


def made(name: str, key: str, seed: int, strength: float = 0.05, intercept: bool = True):
    X, y = problems.problem(name, seed, rows=30, columns=COLUMNS, mean=0.5)
    penalty = PENALTIES[key]
    if not isinstance(penalty, penalties.Ball):
        penalty = penalty.scaled(strength)
    weight = np.random.default_rng(seed).random(len(y)) + 0.1
    weight[-1] = 0.0
    return Problem.build(X, y, problems.DATAFITS[name], penalty, weight, intercept)


def at(problem: Problem, coef: np.ndarray) -> Point:
    start = Fit(problem, problem.predict(coef, problem.best_constant), problem.best_constant)
    return Point(problem, coef, start).with_best_intercept()


@pytest.mark.parametrize("name", CONJUGATES)
@anywhere
@settings(max_examples=5, deadline=None, derandomize=True)
def test_conjugates_are_the_supremum_that_a_search_finds(name, seed):
    datafit = problems.DATAFITS[name]
    rng = np.random.default_rng(seed)
    y = problems.target(name, rng.standard_normal(12), rng)
    weight = rng.random(12) + 0.1
    weight /= weight.sum()
    prediction = rng.standard_normal(y.shape)
    if name == "poisson-identity":
        prediction = np.abs(prediction) + 0.01
    # Not a slope itself, but inside the domain: nearer to zero.
    dual = datafit.gradient(y, prediction, weight) / rng.uniform(1.05, 3)
    conjugate = datafit.conjugate(y, dual, weight)

    def excess(z: np.ndarray) -> tuple[float, np.ndarray]:
        z = z.reshape(y.shape)
        value = datafit.value(y, z, weight) - float(np.sum(dual * z))
        return value, (datafit.gradient(y, z, weight) - dual).ravel()

    if name == "square-root":  # largest at its kink, where there is no derivative to search by
        others = [excess(y + rng.standard_normal(y.shape))[0] for _ in range(100)]
        assert -min(others) <= conjugate
        # Summed in an order that is the processor's, on either side: each of the n terms rounds
        # by half a unit in the last place of what their sizes add up to.
        rounding = len(y) * np.finfo(float).eps * float(np.sum(np.abs(dual * y)))
        assert conjugate == pytest.approx(float(np.sum(dual * y)), rel=0, abs=rounding)
        return
    bounds, start = None, y + 0.1
    if name == "poisson-identity":  # infinite where something was counted at no mean
        bounds, start = [(1e-6 - 0.1 if count > 0 else None, None) for count in y], prediction
    options = {"maxiter": 5000, "maxfun": 20_000, "ftol": 1e-15, "gtol": 1e-10}
    found = optimize.minimize(
        excess, start.ravel(), jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    assert -found.fun <= conjugate + 1e-9 * (1 + abs(conjugate))
    assert -found.fun == pytest.approx(conjugate, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", CONJUGATES)
@anywhere
@settings(max_examples=10, deadline=None, derandomize=True)
def test_conjugates_are_finite_once_divided_by_the_gauge(name, seed):
    datafit = problems.DATAFITS[name]
    rng = np.random.default_rng(seed)
    y = problems.target(name, rng.standard_normal(12), rng)
    weight = rng.dirichlet(np.ones(12))
    slope = datafit.gradient(y, np.abs(rng.standard_normal(y.shape)), weight)
    assert datafit.dual_gauge(slope, weight) == pytest.approx(1.0, abs=1e-12)
    assert np.isfinite(datafit.conjugate(y, slope, weight))
    if datafit.dual_gauge(20 * slope, weight) > 1:
        far = 20 * slope / datafit.dual_gauge(20 * slope, weight)
        assert np.isfinite(datafit.conjugate(y, far, weight))
        assert datafit.conjugate(y, 1.001 * far, weight) == np.inf


@pytest.mark.parametrize("key", [key for key in PENALTIES if key not in WITHOUT_RULE])
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
@anywhere
@settings(max_examples=4, deadline=None, derandomize=True)
def test_the_conjugate_of_a_penalty_is_the_largest_excess_of_a_product(key, size, seed):
    """Where the penalty is a norm: no product exceeds it, and some comes near it."""
    penalty, rng = PENALTIES[key], np.random.default_rng(seed)
    matrix = penalty.refusal((COLUMNS,)) is not None
    shape = (COLUMNS, 3) if matrix else (COLUMNS,)
    gradient = size * rng.standard_normal(shape)
    free = penalty.free_directions(shape).toarray()
    if free.shape[1]:
        gradient = gradient - free @ np.linalg.lstsq(free, gradient, rcond=None)[0]
    shrink, price = penalty.feasible(gradient)
    dual = -gradient / shrink

    def excess(v: np.ndarray) -> float:
        return float(np.sum(dual * v)) - penalty.value(v)

    for _ in range(30):
        v = penalty.prox(3 * rng.standard_normal(shape), 0.1)
        assert excess(v) <= price + 1e-9 * (1 + abs(price))
    # The proximal point method climbs to the largest excess.
    v = np.zeros(shape)
    for _ in range(300):
        v = penalty.prox(v + 5 * dual, 5.0)
    assert excess(v) == pytest.approx(price, rel=1e-6, abs=1e-8)
    if shrink > 1:  # the least factor: with a little less a product grows without end
        v = penalty.prox(-gradient, shrink * (1 - 1e-4))
        assert np.sum(-gradient * v) > shrink * (1 - 1e-4) * penalty.value(v) > 0


@pytest.mark.parametrize(
    ("name", "key"),
    [(n, k) for n, k in pairs() if n not in WITHOUT_CONJUGATE and k not in WITHOUT_RULE],
)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([0.0, 0.1, 1.0]), intercept=st.booleans())
@settings(max_examples=2, deadline=None, derandomize=True)
def test_no_gap_is_less_than_what_a_better_point_gains(name, key, seed, size, intercept):
    problem = made(name, key, seed, intercept=intercept)
    rng = np.random.default_rng(seed)
    gap = DualityGap.of(problem)
    coef = problem.penalty.prox(size * rng.standard_normal(problem.coef_shape), 1.0)
    if name == "poisson-identity":  # its loss is infinite below zero
        coef = problem.penalty.prox(np.zeros(problem.coef_shape), 1.0)
        if not intercept:
            return
    point = at(problem, coef)
    better = ProximalGradient(tol=1e-8, max_iter=500).solve(problem)
    least = problem.objective(better.coef, problem.predict(better.coef, better.intercept))
    assert gap.at(point) >= point.objective - least - 1e-9 * gap.scale
    end = gap.at(at(problem, better.coef))
    assert end <= 1e-3 * gap.scale or name == "poisson-identity"


@pytest.mark.parametrize(("name", "key"), list(pairs()))
def test_which_convex_pairs_have_a_gap(name, key):
    problem = made(name, key, 0)
    known = name not in WITHOUT_CONJUGATE and key not in WITHOUT_RULE
    assert (DualityGap.of(problem) is not None) == known
    slow = name == "poisson-identity"  # gradient steps stop on its violation
    solution = ProximalGradient(tol=1e-3, max_iter=200).solve(problem)
    assert solution.kind == ("duality gap" if known and not slow else "optimality violation")
    for solver in (CoordinateDescent(), GroupDescent()):
        if solver.refusal(problem) is None:
            solution = solver.solve(problem)
            assert solution.converged
            assert solution.kind == ("duality gap" if known else "optimality violation")


def test_what_has_no_gap_beside_the_pairs():
    X, y = problems.problem("squares", 0, columns=COLUMNS)
    squares = datafits.Squares()
    free = np.append(np.ones(COLUMNS - 1), 0.0)
    for penalty in (
        penalties.L1(0.1, weights=free, positive=True),  # one-sided, as NonNegative
        penalties.L1(1e-17),  # less than the rounding of a gradient
        penalties.Slope(0.0),
        penalties.LInf(0.0),
        penalties.KSupport(0.0, k=2),
        penalties.MCP(0.1),
    ):
        assert DualityGap.of(Problem.build(X, y, squares, penalty)) is None
    wide = np.random.default_rng(0).standard_normal((20, 150))
    unpenalised = np.append(np.zeros(120), np.ones(30))
    problem = Problem.build(wide, y[:20], squares, penalties.L1(0.1, weights=unpenalised))
    assert DualityGap.of(problem) is None  # more free columns than are projected on
    # Solvers of their own rules: the gap of an atom, and violations by which rules are compared.
    ball = Problem.build(X, y, squares, penalties.L1Ball(1.0))
    assert FrankWolfe().solve(ball).kind == "Frank-Wolfe gap"
    lasso = Problem.build(X, y, squares, penalties.L1(0.1))
    assert GreedyBlocks().solve(lasso).kind == "optimality violation"
    counts = problems.target("poisson-identity", X[:, 0], np.random.default_rng(0))
    positive = penalties.L1(0.1, positive=True)
    intensity = Problem.build(
        np.abs(X), counts, datafits.PoissonIdentity(0.1), positive, intercept=False
    )
    assert Spiral().solve(intensity).kind == "optimality violation"


def test_a_slope_that_leans_on_the_constant_is_projected():
    """Without the best intercept the gap still is a bound."""
    problem = made("logistic", "l1", 0)
    best = ProximalGradient(tol=1e-9).solve(problem)
    least = problem.objective(best.coef, problem.predict(best.coef, best.intercept))
    coef = np.zeros(COLUMNS)
    for shift in (0.1, 0.5, 1.0):
        intercept = problem.best_constant + shift
        point = Point(problem, coef, Fit(problem, problem.predict(coef, intercept), intercept))
        gap = DualityGap.of(problem).at(point)
        assert np.isfinite(gap)
        assert gap >= point.objective - least
