"""Solutions along a decreasing sequence of penalty strengths."""

from __future__ import annotations

__all__ = [
    "Path",
    "alpha_grid",
    "alpha_max",
    "given_alphas",
    "solve_closely",
    "solve_path",
    "warn_of_unmet_tolerance",
]

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..core.errors import OptionError
from ..core.options import check_number, check_whole
from . import _solve
from .problem import Problem, Solution
from .solvers import Solver
from .solvers.choice import fastest
from .solvers.conditioning import condition

# Times that the fit of features without a penalty, and the strength that the rest asks for, are
# computed in turn.
_FIXED_POINT = 30
_SHARPER = 20  # times that a loss is replaced by a closer approximation


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

    def at(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients and constant between the strengths, by linear interpolation.

        Between knots of the Lasso's path, such as those of
        :func:`~thresher.linear.greedy.lars.lars_path`, that is exact.

        Parameters
        ----------
        alpha : float
            From the smallest strength to the largest.

        Raises
        ------
        OptionError
            If it lies outside.
        """
        most, least = float(self.alphas[0]), float(self.alphas[-1])
        if not least <= alpha <= most:
            raise OptionError(f"alpha must lie from {least:.4g} to {most:.4g}, got {alpha!r}")
        above = int(np.flatnonzero(self.alphas >= alpha)[-1])
        below = min(above + 1, len(self.alphas) - 1)
        width = float(self.alphas[above] - self.alphas[below])
        share = float(self.alphas[above] - alpha) / width if width > 0 else 0.0
        coef, intercept = (
            (1 - share) * values[above] + share * values[below]
            for values in (self.coefs, self.intercepts)
        )
        return coef, intercept


def warn_of_unmet_tolerance(
    paths: Sequence[Path], tolerance: float, fits: str, stacklevel: int = 3
) -> None:
    """Emit one ConvergenceWarning that says how many fits missed the tolerance, and the worst.

    Parameters
    ----------
    paths : sequence of Path
        What was fitted.
    tolerance : float
        What was asked for.
    fits : str
        What the fits are called.
    stacklevel : int, default 3
        Whose line the warning names: that of the caller's caller by default.
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
        stacklevel=stacklevel,
    )


def alpha_max(problem: Problem) -> float:
    """Return the smallest factor of the penalty at which all that it penalises is zero.

    Features without a penalty are fitted first: the rest has to explain what they leave.

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
    restated = condition(problem).problem
    free = np.flatnonzero(problem.penalty.unpenalised(problem.coef_shape))
    if not len(free):
        return problem.penalty.alpha_max(restated.null_gradient.astype(float))
    inside = replace(
        restated,
        design=restated.design.columns(free),
        penalty=problem.penalty.restricted(free),
    )
    top, coef, intercept = 1.0, None, None
    # A ridge on what is free grows with the strength as well, and then so does what is left.
    for _ in range(_FIXED_POINT):
        part = inside.with_penalty(inside.penalty.scaled(top))
        found = fastest(part, 1e-9, 1000).solve(part, coef, intercept)
        coef, intercept = found.coef, found.intercept
        gradient = restated.gradient(part.predict(coef, intercept)).astype(float)
        gradient[free] = 0
        before, top = top, problem.penalty.alpha_max(gradient)
        if abs(top - before) <= 1e-9 * top or top == 0:
            break
    return top


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


def solve_closely(
    problem: Problem,
    solver: Solver,
    coef: np.ndarray | None = None,
    intercept: np.ndarray | float | None = None,
) -> tuple[Problem, Solution]:
    """Solve, and again for as long as the residuals ask for a closer approximation of the loss.

    Returns
    -------
    problem : Problem
        With the loss that was minimised last.
    solution : Solution
        What minimises it.
    """
    solution = solver.solve(problem, coef, intercept)
    for _ in range(_SHARPER):
        prediction = problem.predict(solution.coef, solution.intercept)
        closer = problem.datafit.sharpened(problem.y, prediction, problem.weight)
        if closer is None:
            break
        problem = replace(problem, datafit=closer)
        solution = solver.solve(problem, solution.coef, solution.intercept)
    return problem, solution


def solve_path(
    problem: Problem,
    alphas: np.ndarray,
    solver: Solver,
    max_features: int | None = None,
    max_explained: float | None = None,
) -> Path:
    """Solve for every strength, each fit started from the previous one.

    Parameters
    ----------
    problem : Problem
        Its penalty counts as strength one.
    alphas : array of shape (n_alphas,)
        Factors of the penalty; used in decreasing order.
    solver : Solver
        What minimises.
    max_features : int, optional
        The path ends before the first strength at which more features have a coefficient.
    max_explained : float, optional
        The path ends with the first strength that explains this share of the deviance.

    Returns
    -------
    Path
        One entry per strength, decreasing.

    Raises
    ------
    OptionError
        If the largest strength takes more than `max_features`.
    """
    alphas, penalty = np.sort(np.asarray(alphas, dtype=float))[::-1], problem.penalty
    single = condition(problem).problem.design.dtype == np.float32
    problem = problem.with_trail(_solve.Trail32() if single else _solve.Trail64())
    solutions = []
    coef, intercept = None, None
    for alpha in alphas:
        problem = problem.with_penalty(penalty.scaled(float(alpha)))
        problem, solution = solve_closely(problem, solver, coef, intercept)
        coef, intercept = solution.coef, solution.intercept
        if max_features is not None and _features(coef) > max_features:
            break
        solutions.append(solution)
        if max_explained is not None and _explained(problem, solution) >= max_explained:
            break
    if not solutions and coef is not None:
        raise OptionError(
            f"max_features is {max_features}, but {_features(coef)} features have a coefficient at "
            f"the largest strength, {alphas[0]:.3g}; give larger alphas"
        )
    return Path(
        alphas[: len(solutions)],
        np.stack([s.coef for s in solutions]),
        np.stack([s.intercept for s in solutions]),
        np.array([s.criterion for s in solutions]),
        np.array([s.converged for s in solutions]),
    )


def _features(coef: np.ndarray) -> int:
    return int(np.count_nonzero(coef.reshape(len(coef), -1).any(axis=1)))


def _explained(problem: Problem, solution: Solution) -> float:
    loss, y, weight = problem.datafit.exact, problem.y, problem.weight
    least = loss.saturated(y, weight)
    start = loss.value(y, problem.null_prediction, weight) - least
    left = loss.value(y, problem.predict(solution.coef, solution.intercept), weight) - least
    return 1 - left / start if start > 0 else 1.0
