"""The same problem restated so that rounding does no harm."""

from __future__ import annotations

__all__ = ["Conditioned", "condition"]

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from ...core.errors import DataError
from ..centring import Centring
from ..design import Design
from ..problem import Problem, Solution

# A column whose mean is so many times its standard deviation is centred. Without that a variance
# loses the square of the ratio in relative accuracy, a correlation the ratio itself.
_LARGEST_RATIO = {np.dtype(np.float32): 1.0, np.dtype(np.float64): 1e3}


@dataclass(frozen=True)
class Conditioned:
    """A problem as it is solved.

    Parameters
    ----------
    problem : Problem
        With centred columns, or in double precision, where that was needed.
    centring : Centring
        What was subtracted from columns and target.
    """

    problem: Problem
    centring: Centring

    def start(self, coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the restated problem starts."""
        coef = coef.astype(self.problem.design.dtype, copy=False)
        return coef, self.centring.constant(coef, intercept)

    def finish(self, solution: Solution, dtype: np.dtype) -> Solution:
        """Return the solution of the first problem, its coefficients in the given precision."""
        coef = solution.coef.astype(dtype, copy=False)
        intercept = self.centring.intercept(coef, solution.intercept)
        return replace(solution, coef=coef, intercept=np.asarray(intercept))


def condition(problem: Problem) -> Conditioned:
    """Restate a problem: target and columns centred, and precision where it lacks.

    The target is centred where the loss knows shifts, columns where their means dwarf them, which
    needs an intercept and a dense design, and makes a copy of it. Single precision is left where
    the squares of a column leave its range, or where a sparse column would have to be centred.

    Parameters
    ----------
    problem : Problem
        What to minimise.

    Returns
    -------
    Conditioned
        The problem itself if nothing is needed.

    Raises
    ------
    DataError
        If the squares of a column leave the range of double precision.
    """
    kept = problem.once(_restated)
    if kept is None:
        return Conditioned(problem, Centring())
    restated = kept.problem.with_penalty(problem.penalty)
    return replace(kept, problem=restated.with_trail(problem.trail) if problem.trail else restated)


def _restated(problem: Problem) -> Conditioned | None:
    """Return None for the problem itself, which must not keep itself alive."""
    conditioned = _condition(problem.centred)
    if conditioned.problem is problem:
        return None
    return replace(conditioned, centring=replace(conditioned.centring, offset=problem.centre))


def _condition(problem: Problem) -> Conditioned:
    single = problem.design.dtype == np.float32
    dwarfed = _dwarfed(problem)
    if single and (not _in_range(problem) or (dwarfed.any() and problem.design.is_sparse)):
        problem = replace(problem, design=Design(problem.design.matrix.astype(float)))
        return _condition(problem)
    if dwarfed.any() and not problem.design.is_sparse:
        return _centred(problem)
    _require_range(problem)
    return Conditioned(problem, Centring())


def _dwarfed(problem: Problem) -> np.ndarray:
    """Return which columns are small beside their own means."""
    means, curvature = problem.moments
    if means is None:
        return np.zeros(0, dtype=bool)
    limit = _LARGEST_RATIO[problem.design.dtype]
    return np.abs(means.astype(float)) > limit * np.sqrt(curvature.astype(float))


def _centred(problem: Problem) -> Conditioned:
    matrix = problem.design.matrix.astype(float)
    means = problem.weight @ matrix
    matrix -= means
    # The mean was rounded as well; what is left of it is small, and exact enough to take off.
    rest = problem.weight @ matrix
    matrix -= rest
    means = means + rest
    # What rounding leaves of a constant column is not variation.
    epsilon = float(np.finfo(problem.design.dtype).eps)
    matrix[:, np.abs(matrix).max(axis=0) <= 8 * epsilon * np.abs(means)] = 0
    design = Design(matrix.astype(problem.design.dtype, copy=False))
    restated = replace(problem, design=design)
    _require_range(restated)
    return Conditioned(restated, Centring(means))


def _in_range(problem: Problem) -> bool:
    return _out_of_range(problem).size == 0


def _require_range(problem: Problem) -> None:
    lost = _out_of_range(problem)
    if lost.size:
        column = int(lost[0])
        largest = abs(problem.design.matrix[:, [column]]).max()
        raise DataError(
            f"the squares of column {column} of X leave the range of {problem.design.dtype} "
            f"numbers (its largest magnitude is {largest:.2g}); scale the features"
        )


def _out_of_range(problem: Problem) -> np.ndarray:
    """Return the columns whose squares overflow, or vanish although the column varies."""
    curvature = problem.moments[1]
    endless = np.flatnonzero(~np.isfinite(curvature))
    flat = np.flatnonzero(curvature == 0)
    if flat.size == 0:
        return endless
    columns = problem.design.matrix[:, flat]
    if not np.all(problem.weight > 0):
        columns = columns[problem.weight > 0]
    top, bottom = _along(columns.max(axis=0)), _along(columns.min(axis=0))
    largest = np.maximum(np.abs(top), np.abs(bottom))
    variation = top - bottom if problem.intercept else largest
    lost = variation > 8 * np.finfo(problem.design.dtype).eps * largest
    return np.union1d(endless, flat[lost])


def _along(extremes: Any) -> np.ndarray:
    """Return the extremes of columns as a vector, dense or sparse."""
    return np.asarray(extremes.toarray() if sparse.issparse(extremes) else extremes).ravel()
