"""Solutions along a decreasing sequence of penalty strengths."""

from __future__ import annotations

__all__ = ["Path", "alpha_grid", "alpha_max", "solve_path"]

from dataclasses import dataclass

import numpy as np

from ..core.errors import OptionError
from . import _linear
from .penalties import Separable
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


def alpha_max(problem: Problem) -> float:
    """Return the smallest factor of the penalty at which all coefficients are zero.

    Parameters
    ----------
    problem : Problem
        Its penalty counts as strength one.

    Raises
    ------
    OptionError
        If no strength does it: an unpenalised coefficient, or an infinite slope at zero.
    """
    zero = np.zeros(problem.coef_shape)
    gradient = condition(problem).problem.null_gradient.astype(float)
    penalty = problem.penalty
    if isinstance(penalty, Separable):
        pull = np.maximum(-gradient, 0) if penalty.positive else np.abs(gradient)
        slope = np.broadcast_to(np.asarray(penalty.slope_at_zero, dtype=float), pull.shape)
        if not np.all(np.isfinite(slope)):
            raise OptionError(
                f"{type(penalty).__name__} has an infinite slope at zero, so that its path has no "
                "natural start; give alphas"
            )
        return float(np.max(pull / np.where(slope > 0, slope, np.inf), initial=0.0))

    def leaves_zero(factor: float) -> bool:
        distance = penalty.scaled(factor).subdifferential_distance(zero, gradient)
        return bool(np.max(distance, initial=0.0) > 1e-12 * np.max(np.abs(gradient)))

    if not leaves_zero(0.0):
        return 0.0
    high = 1.0
    while leaves_zero(high):
        high *= 2
        if high > 1e100:
            raise OptionError(f"no strength of {type(penalty).__name__} makes zero optimal")
    low = 0.0
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if leaves_zero(middle) else (low, middle)
    return high


def alpha_grid(problem: Problem, count: int, ratio: float) -> np.ndarray:
    """Return strengths falling geometrically from :func:`alpha_max` to `ratio` times it."""
    if count < 1 or not 0 < ratio < 1:
        raise OptionError(f"need n_alphas of 1 or more and 0 < eps < 1, got {count} and {ratio}")
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
