"""Stochastic steps on models of losses with kinks."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from thresher.core.errors import OptionError
from thresher.linear import datafits, penalties
from thresher.solve.solvers import CoordinateDescent, Problem, ProximalGradient, StochasticModels

FREE = penalties.L1(0.0)


def build(datafit, penalty, seed=0, intercept=False):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 4))
    y = rng.standard_normal(60) if isinstance(datafit, datafits.AbsoluteError) else rng.random(60)
    return Problem.build(X, y, datafit, penalty, intercept=intercept)


def model_of(name, datafit, row, target, point):
    """Return the model as the paper writes it, as a function of the vector."""
    here = row @ point
    residual, slope = datafit.inner(here) - target, datafit.inner_slope(here)
    return {
        "subgradient": lambda x: abs(residual) + np.sign(residual) * slope * (row @ x - here),
        "prox-linear": lambda x: abs(residual + slope * (row @ x - here)),
        "prox-point": lambda x: abs(datafit.inner(row @ x) - target),
    }[name]


@pytest.mark.parametrize("model", ["subgradient", "prox-linear", "prox-point"])
@pytest.mark.parametrize("datafit", [datafits.AbsoluteError(), datafits.IntensityError()])
@pytest.mark.parametrize("length", [0.01, 0.1, 1.0, 30.0])
def test_a_step_minimises_the_model_near_the_point(model, datafit, length):
    problem = build(datafit, FREE)
    solver = StochasticModels(model=model)
    rng = np.random.default_rng(1)
    for i in range(20):
        row, target, point = problem.design.matrix[i], problem.y[i], rng.standard_normal(4)
        loss = model_of(model, datafit, row, target, point)
        moved = solver._following(problem, row, target, point, length)

        def value(x, loss=loss, point=point):
            return loss(x) + (x - point) @ (x - point) / (2 * length)

        # Only the direction of the row can pay.
        best = min(value(point + t * row) for t in np.linspace(-30, 30, 2001) * length)
        fine = minimize_scalar(
            lambda t: value(point + t * row),  # noqa: B023
            bounds=sorted(((moved - point) @ row / (row @ row) + d) for d in (-1e-3, 1e-3)),
            method="bounded",
        ).fun
        assert value(moved) <= min(best, fine) + 1e-9


@pytest.mark.parametrize("penalty", [penalties.L1(0.3), penalties.MCP(0.5, gamma=3.0)])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("datafit", [datafits.AbsoluteError(), datafits.IntensityError()])
def test_a_step_with_a_penalty_is_optimal_too(penalty, datafit, intercept):
    problem = build(datafit, penalty, intercept=intercept)
    solver = StochasticModels(model="prox-linear")
    rng = np.random.default_rng(2)
    for i in range(10):
        row, point = problem.design.matrix[i], rng.standard_normal(4)
        if intercept:
            row, point = np.append(row, 1.0), np.append(point, 0.2)
        loss = model_of("prox-linear", datafit, row, problem.y[i], point)
        moved = solver._following(problem, row, problem.y[i], point, 0.4)

        def value(x, loss=loss, point=point):
            return loss(x) + penalty.value(x[:4]) + (x - point) @ (x - point) / 0.8

        for size in (1e-4, 1e-2, 0.3):
            for _ in range(50):
                other = moved + size * rng.standard_normal(len(moved))
                assert value(moved) <= value(other) + 1e-9


def test_least_absolute_deviations_agree_with_the_smoothed_loss():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((200, 6))
    y = X @ [2.0, -1, 0, 0, 1, 0] + 0.5 + 0.1 * rng.standard_normal(200)
    y[:20] += 30.0
    penalty = penalties.L1(0.05)
    kinked = Problem.build(X, y, datafits.AbsoluteError(), penalty)
    smooth = Problem.build(X, y, datafits.SmoothQuantile(0.5, width=0.001), penalty.scaled(0.5))
    found = StochasticModels(tol=0, max_iter=60, step=0.3).solve(kinked)
    other = CoordinateDescent(tol=1e-6, max_iter=5000).solve(smooth)
    reached, best = (
        kinked.objective(s.coef, kinked.predict(s.coef, s.intercept)) for s in (found, other)
    )
    assert reached <= best * 1.01
    np.testing.assert_allclose(found.coef, other.coef, atol=0.05)


@pytest.mark.parametrize("model", ["prox-linear", "prox-point"])
def test_phase_is_retrieved_in_spite_of_gross_errors(model):
    rng = np.random.default_rng(4)
    X, truth = rng.standard_normal((200, 20)), rng.standard_normal(20)
    y = (X @ truth) ** 2
    y[:20] *= 10 * rng.random(20)
    problem = Problem.build(X, y, datafits.IntensityError(), FREE, intercept=False)
    solver = StochasticModels(tol=0, max_iter=100, model=model, step=0.1)
    found = solver.solve(problem)
    gap = min(np.linalg.norm(found.coef - truth), np.linalg.norm(found.coef + truth))
    assert gap <= 0.02 * np.linalg.norm(truth)
    np.testing.assert_array_equal(found.coef, solver.solve(problem).coef)


def test_a_diverging_step_returns_what_was_reached():
    problem = build(datafits.IntensityError(), FREE)
    found = StochasticModels(model="subgradient", step=1e6).solve(problem)
    assert np.all(np.isfinite(found.coef))
    assert not found.converged


def test_what_does_not_fit_is_refused():
    kinked = build(datafits.AbsoluteError(), FREE)
    with pytest.raises(OptionError, match="the loss has a kink; use StochasticModels"):
        ProximalGradient().solve(kinked)
    with pytest.raises(OptionError, match="did you mean 'prox-point'"):
        StochasticModels(model="prox-pont").solve(kinked)
    smooth = Problem.build(kinked.design, kinked.y, datafits.Squares(), FREE)
    with pytest.raises(OptionError, match="only AbsoluteError and IntensityError"):
        StochasticModels().solve(smooth)
    with pytest.raises(OptionError, match="no joint proximal point"):
        StochasticModels(model="prox-point").solve(
            build(datafits.IntensityError(), penalties.L1(0.1))
        )
