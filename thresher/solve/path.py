"""Solutions along a decreasing sequence of penalty strengths."""

from __future__ import annotations

__all__ = [
    "Path",
    "alpha_grid",
    "alpha_max",
    "given_alphas",
    "solve_path",
    "warn_of_unmet_tolerance",
]

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..core.errors import OptionError
from ..core.options import check_number, check_whole
from ..linear import _linear
from .penalties import Ball, Penalty, Separable
from .solvers import Problem, Solver
from .solvers.conditioning import condition


@dataclass(frozen=True)
class Path:
    """Coefficients for every strength.

    Parameters
    ----------
    alphas : array of shape (n_alphas,)
        Strengths, decreasing.
    coefs : array of shape (n_alphas, p) or (n_alphas, p, outputs)
        Coefficients.
    intercepts : array of shape (n_alphas,) or (n_alphas, outputs)
        Constants.
    criteria : array of shape (n_alphas,)
        Relative duality gap or violation of optimality at the end of each fit.
    converged : array of bool of shape (n_alphas,)
        Whether each fit met the tolerance.
    """

    alphas: np.ndarray
    coefs: np.ndarray
    intercepts: np.ndarray
    criteria: np.ndarray
    converged: np.ndarray


def warn_of_unmet_tolerance(paths: Sequence[Path], tolerance: float, fits: str) -> None:
    """Emit one ConvergenceWarning that says how many fits missed the tolerance, and the worst.

    Parameters
    ----------
    paths : sequence of Path
        What was fitted.
    tolerance : float
        What was asked for.
    fits : str
        What the fits are called.
    """
    missed = [np.flatnonzero(~path.converged) for path in paths]
    count = sum(map(len, missed))
    if not count:
        return
    worst, alpha = max(
        (path.criteria[k], path.alphas[k])
        for path, places in zip(paths, missed, strict=True)
        for k in places
    )
    total = sum(len(path.alphas) for path in paths)
    warnings.warn(
        f"{count} of {total} {fits} missed the tolerance {tolerance:.2e}; the worst reached "
        f"{worst:.2e} of its scale, at alpha {alpha:.3g}; raise max_iter or the strengths, "
        "or scale the features",
        ConvergenceWarning,
        stacklevel=3,
    )


def alpha_max(problem: Problem) -> float:
    """Return the smallest factor of the penalty at which all coefficients are zero.

    Parameters
    ----------
    problem : Problem
        Its penalty counts as strength one.

    Raises
    ------
    OptionError
        If no strength does it: a penalty without a slope at zero, or with an infinite one, or
        combinations of coefficients that cost nothing.
    """
    gradient = condition(problem).problem.null_gradient.astype(float)
    penalty = problem.penalty
    if isinstance(penalty, Separable):
        return _separable_alpha_max(penalty, gradient)
    if isinstance(penalty, Ball):
        raise _no_start(penalty, "is a constraint to a ball, whose radius alpha divides")
    largest = float(np.max(np.abs(gradient), initial=0.0))
    _require_slope(penalty, gradient)
    zero = np.zeros(problem.coef_shape)

    def leaves_zero(factor: float) -> bool:
        distance = penalty.scaled(factor).subdifferential_distance(zero, gradient)
        return bool(np.max(distance, initial=0.0) > 1e-12 * largest)

    if not leaves_zero(0.0):
        return 0.0
    # Strengths have the unit of the gradient where the norm is one of coefficients.
    low, high = 0.0, largest
    while leaves_zero(high):
        low, high = high, 2 * high
        if high > 1e9 * largest:
            raise _no_start(penalty, "leaves some combinations of coefficients free")
    while low == 0 and high > 1e-9 * largest and not leaves_zero(high / 2):
        high /= 2
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if leaves_zero(middle) else (low, middle)
    return high


def _separable_alpha_max(penalty: Separable, gradient: np.ndarray) -> float:
    pull = np.maximum(-gradient, 0) if penalty.positive else np.abs(gradient)
    slope = np.broadcast_to(np.asarray(penalty.slope_at_zero, dtype=float), pull.shape)
    if not np.all(np.isfinite(slope)):
        raise _no_start(penalty, "has an infinite slope at zero")
    if not np.any(slope > 0):
        raise _no_start(penalty, "has no slope at zero (l1_ratio 0, or no strength)")
    return float(np.max(pull / np.where(slope > 0, slope, np.inf), initial=0.0))


def _require_slope(penalty: Penalty, gradient: np.ndarray) -> None:
    """Raise if the penalty grows like a square around zero, so that it never holds zero."""
    largest = float(np.max(np.abs(gradient), initial=0.0))
    if largest == 0:
        return
    value, near = penalty.value(gradient / largest), penalty.value(1e-6 * gradient / largest)
    if np.isfinite(value) and near < 1e-9 * value:
        raise _no_start(penalty, "has no slope at zero")


def _no_start(penalty: Penalty, reason: str) -> OptionError:
    return OptionError(
        f"{type(penalty).__name__} {reason}, so that no strength gives zeros alone and the path "
        "has no natural start; give alphas"
    )


def given_alphas(alphas: Any) -> np.ndarray:
    """Check strengths that were given, and return them decreasing.

    Raises
    ------
    OptionError
        Unless they are a non-empty vector of finite numbers, none negative.
    """
    try:
        values = np.asarray(alphas, dtype=float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1 or not values.size or not np.all((values >= 0) & np.isfinite(values)):
        raise OptionError(
            f"alphas must be a vector of finite numbers of at least 0, got {alphas!r}"
        )
    return np.sort(values)[::-1]


def alpha_grid(problem: Problem, count: int, ratio: float) -> np.ndarray:
    """Return strengths falling geometrically from :func:`alpha_max` to `ratio` times it."""
    check_whole("n_alphas", count)
    check_number("eps", ratio, above=0.0, below=1.0)
    top = alpha_max(problem)
    # A target without any signal has no path; any strength gives zeros.
    return (top if top > 0 else 1.0) * np.geomspace(1.0, ratio, count)


def solve_path(problem: Problem, alphas: np.ndarray, solver: Solver) -> Path:
    """Solve for every strength, each fit started from the previous one.

    Parameters
    ----------
    problem : Problem
        Its penalty counts as strength one.
    alphas : array of shape (n_alphas,)
        Factors of the penalty; used in decreasing order.
    solver : Solver
        What minimises.

    Returns
    -------
    Path
        One entry per strength, decreasing.
    """
    alphas = np.sort(np.asarray(alphas, dtype=float))[::-1]
    restated = condition(problem).problem
    single = restated.design.dtype == np.float32
    restated.share("trail", _linear.Trail32 if single else _linear.Trail64)
    solutions = []
    coef, intercept = None, None
    for alpha in alphas:
        solution = solver.solve(
            problem.with_penalty(problem.penalty.scaled(float(alpha))), coef, intercept
        )
        coef, intercept = solution.coef, solution.intercept
        solutions.append(solution)
    return Path(
        alphas,
        np.stack([s.coef for s in solutions]),
        np.stack([s.intercept for s in solutions]),
        np.array([s.criterion for s in solutions]),
        np.array([s.converged for s in solutions]),
    )
