"""Proximal Newton steps on working sets, for losses that are not quadratic."""

from __future__ import annotations

__all__ = ["minimise_by_newton"]

from typing import TYPE_CHECKING

import numpy as np

from .. import _linear
from ..penalties import Grouped, Penalty, Separable
from .duality import feasible_dual
from .problem import Problem, Solution
from .quadratic import Quadratic

if TYPE_CHECKING:
    from .descent import Descent

_STEPS_PER_SET = 20


def minimise_by_newton(
    solver: Descent, problem: Problem, coef: np.ndarray, intercept: np.ndarray
) -> Solution:
    """Minimise a smooth loss plus a penalty whose quadratic problems `solver` can solve.

    Each round finds the worst violators over all columns, then takes Newton steps on them
    and the support alone: the loss is replaced by its quadratic model (or a quadratic upper
    bound), the model is minimised by the compiled descent, and the step is halved until
    the objective falls.

    Parameters
    ----------
    solver : Descent
        Coordinate or group descent.
    problem : Problem
        What to minimise.
    coef, intercept : arrays
        Where to start.

    Returns
    -------
    Solution
        With the duality gap as criterion where the loss has a conjugate and the penalty is
        L1-like, the violation of optimality otherwise.
    """
    datafit, penalty = problem.datafit, problem.penalty
    null = problem.null_prediction
    violation_scale = float(np.max(np.abs(problem.null_gradient), initial=0.0))
    objective_scale = abs(datafit.value(problem.y, null, problem.weight))
    gap_known = solver.has_gap(penalty) and _has_conjugate(problem, null)
    scale = objective_scale if gap_known else violation_scale
    floor = 8 * float(np.finfo(problem.design.dtype).eps)
    tolerance = max(solver.tol, floor)
    prediction = problem.predict(coef, intercept)
    stalled = 0
    for rounds in range(solver.max_iter + 1):
        if problem.intercept:
            moved = problem.best_intercept(prediction - intercept, intercept)
            prediction, intercept = prediction + (moved - intercept), moved
        slope = datafit.gradient(problem.y, prediction, problem.weight)
        gradient = problem.design.correlate(slope)
        distance = _violations(problem, penalty, coef, gradient, prediction)
        violation = float(np.max(distance, initial=0.0))
        if stalled and not penalty.convex:
            # No descent step leaves this point although the quadratic model sees one: it is a
            # local minimum if the coefficients that are not zero are stationary.
            violation = float(np.max(penalty.subdifferential_distance(coef, gradient)))
        if gap_known:
            criterion = _duality_gap(solver, problem, coef, prediction, slope, gradient)
        else:
            criterion = violation
        converged = criterion <= tolerance * scale
        if converged or rounds == solver.max_iter or stalled > 3:
            break
        blocks = _working_set(solver, penalty, coef, distance)
        before = coef.copy()
        coef, intercept, prediction = _solve_on(
            solver, problem, blocks, coef, intercept, prediction, slope, violation
        )
        stalled = stalled + 1 if np.array_equal(before, coef) else 0
    relative = criterion / scale if scale > 0 else 0.0
    kind = "duality gap" if gap_known else "optimality violation"
    return Solution(coef, intercept, relative, kind, rounds, bool(converged))


def _has_conjugate(problem: Problem, prediction: np.ndarray) -> bool:
    slope = problem.datafit.gradient(problem.y, prediction, problem.weight)
    return problem.datafit.conjugate(problem.y, slope, problem.weight) is not None


def _violations(
    problem: Problem,
    penalty: Penalty,
    coef: np.ndarray,
    gradient: np.ndarray,
    prediction: np.ndarray,
) -> np.ndarray:
    if not isinstance(penalty, Separable) or np.all(np.isfinite(penalty.slope_at_zero)):
        return penalty.subdifferential_distance(coef, gradient)
    # Where zero is always stationary, only a descent step of the coordinate's own curvature
    # tells whether leaving it pays.
    weight = problem.datafit.curvature(problem.y, prediction, problem.weight)
    _, curvature = problem.design.moments(weight, problem.intercept)
    curvature = np.where(curvature > 0, curvature, np.inf)
    out = np.empty_like(coef)
    steps = (1 / curvature).astype(coef.dtype)
    point = coef - steps * gradient.astype(coef.dtype)
    _linear.prox(point, steps, penalty.code, problem.design.cast(penalty.weights), out)
    change = np.abs(out - coef)
    return np.where(change > 0, change * np.where(np.isinf(curvature), 0, curvature), 0.0)


def _duality_gap(
    solver: Descent,
    problem: Problem,
    coef: np.ndarray,
    prediction: np.ndarray,
    slope: np.ndarray,
    gradient: np.ndarray,
) -> float:
    """Return the gap at the dual point that the slope of the loss gives, scaled if needed."""
    radial = solver.blocks(problem.penalty)
    pull = -gradient if radial.positive else np.abs(gradient)
    if not isinstance(problem.penalty, Separable):
        pull = problem.penalty.norms(gradient)  # type: ignore[attr-defined]
    shrink, price = feasible_dual(pull, radial.strength, np.asarray(radial.code[2]))
    conjugate = problem.datafit.conjugate(problem.y, slope / shrink, problem.weight)
    assert conjugate is not None  # otherwise the gap is not asked for
    return problem.objective(coef, prediction) + conjugate + float(price)


def _working_set(
    solver: Descent, penalty: Penalty, coef: np.ndarray, distance: np.ndarray
) -> np.ndarray:
    if distance.size <= solver.working_set:
        return np.arange(len(distance))  # so few that choosing costs more than it spares
    support: np.ndarray = penalty.generalized_support(coef)
    if isinstance(penalty, Grouped):
        support = np.bincount(penalty.groups, weights=support) > 0
    elif support.ndim == 2:
        support = np.asarray(support.any(axis=1))
    useful = int(np.count_nonzero(support | (distance > 0)))
    size = min(max(solver.working_set, 2 * int(support.sum())), useful)
    priority = np.where(support, np.inf, distance)
    return np.sort(np.argpartition(-priority, size - 1)[:size]) if size else np.arange(0)


def _solve_on(
    solver: Descent,
    problem: Problem,
    blocks: np.ndarray,
    coef: np.ndarray,
    intercept: np.ndarray,
    prediction: np.ndarray,
    slope: np.ndarray,
    violation: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take Newton steps on some blocks until their violation is a tenth of `violation`."""
    columns = blocks
    if isinstance(problem.penalty, Grouped):
        columns = np.flatnonzero(np.isin(problem.penalty.groups, blocks))
    design = problem.design.columns(columns)
    penalty = problem.penalty.restricted(columns)
    datafit, y, weight = problem.datafit, problem.y, problem.weight
    inside = coef[columns]
    current = datafit.value(y, prediction, weight) + penalty.value(inside)
    damping = 1.0
    for _ in range(_STEPS_PER_SET):
        curvature = datafit.curvature(y, prediction, weight)
        # Samples that are fitted to saturation have none; a little keeps the model bounded.
        curvature = np.maximum(curvature, 1e-8 * max(float(curvature.max()), 1e-300)) * damping
        shaped = curvature if slope.ndim == 1 else curvature[:, None]
        model = Quadratic.weighted(
            design, prediction - slope / shaped, curvature, problem.intercept
        )
        proposal = inside.copy()
        solver.descend(model, penalty, proposal, 0.03 * violation)
        toward = design.predict(proposal).astype(float)
        if problem.intercept:
            toward += curvature @ (model.target - toward) / curvature.sum()
        accepted = _search(problem, penalty, inside, proposal, prediction, toward, current)
        if accepted is None:
            # Between two points a concave penalty may rise: shorten the step by more curvature.
            damping *= 4
            if penalty.convex or damping > 1e6:
                break
            continue
        damping = max(1.0, damping / 2)
        inside, prediction, current = accepted
        slope = datafit.gradient(y, prediction, weight)
        left = penalty.subdifferential_distance(inside, design.correlate(slope))
        left = np.where(np.isfinite(left), left, 0.0)
        drift = float(np.max(np.abs(slope.sum(axis=0)))) if problem.intercept else 0.0
        if max(float(np.max(left, initial=0.0)), drift) <= 0.1 * violation:
            break
    coef = coef.copy()
    coef[columns] = inside
    if problem.intercept:
        offset = design.predict(inside).astype(float)  # the support lies inside
        intercept = weight @ (prediction - offset)
        prediction = offset + intercept
    return coef, intercept, prediction


def _search(
    problem: Problem,
    penalty: Penalty,
    coef: np.ndarray,
    proposal: np.ndarray,
    prediction: np.ndarray,
    toward: np.ndarray,
    current: float,
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Halve the step towards the proposal until the objective falls; None if it never does."""
    step = 1.0
    # At the end of the digits the objective cannot tell progress; the violation still can.
    slack = 4 * np.finfo(float).eps * max(abs(current), 1e-300)
    for _ in range(30 if penalty.convex else 1):
        trial = proposal if step == 1 else coef + coef.dtype.type(step) * (proposal - coef)
        reached = prediction + step * (toward - prediction)
        value = problem.datafit.value(problem.y, reached, problem.weight) + penalty.value(trial)
        if value < current or (step == 1 and value <= current + slack):
            return trial, reached, value
        step /= 2
    return None
