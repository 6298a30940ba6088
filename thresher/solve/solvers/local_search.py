"""Local search for the L0 penalty: swaps, entries and exits around coordinate descent."""

from __future__ import annotations

__all__ = ["LocalSearch"]

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ...core.options import check_whole
from ..penalties import L0
from ..problem import Problem, Solution
from ..support_fit import Move, SupportFit
from ..weighted_columns import WeightedColumns
from .base import Need, Solver
from .descent import CoordinateDescent

_PROMISING = 64  # columns whose exchanges a model ranks
_TRIED = 20  # moves that are tried where a model only guesses what they gain
_SETTLED = 1e-9  # a relative fall of the objective that is no progress


@dataclass(frozen=True)
class LocalSearch(Solver):
    """Coordinate descent for the L0 penalty that swaps, adds and drops columns where it stops.

    Coordinate descent stops where no single coefficient can do better with all others as they
    are. There every move of one column (leave, enter, or take another's place) is ranked by what
    it gains with all others refitted: exactly for squares, by the quadratic model of other
    losses, whose most promising moves are then tried. Descent starts again from the first that
    helps, until none does.

    Parameters
    ----------
    max_moves : int, default 1000
        Most returns to coordinate descent.

    References
    ----------
    Hazimeh and Mazumder, Fast best subset selection: coordinate descent and local combinatorial
    optimization algorithms (2020): algorithm 2 with swaps of one column (k = 1), here with the
    others refitted, which is never worse.
    """

    max_moves: int = 1000

    def check_options(self) -> None:
        """Raise OptionError if an option is out of range."""
        super().check_options()
        check_whole("max_moves", self.max_moves, least=0)

    needs: ClassVar = (
        Need(
            lambda _, problem: isinstance(problem.penalty, L0),
            "the penalty is not L0; use CoordinateDescent",
        ),
        *CoordinateDescent.needs,
    )

    @property
    def _descent(self) -> CoordinateDescent:
        return CoordinateDescent(tol=self.tol, max_iter=self.max_iter)

    def run(self, problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> Solution:
        """Descend and search from the given start."""
        solution = self._descent.run(problem, coef, intercept)
        current, rounds = _objective(problem, solution), solution.n_iter
        exact = problem.datafit.quadratic and not problem.penalty.positive  # type: ignore[attr-defined]
        for _ in range(self.max_moves):
            better = _moved_squares(problem, solution) if exact else self._tried(problem, solution)
            if better is None:
                break
            found = self._descent.run(problem, *better)
            rounds += found.n_iter
            reached = _objective(problem, found)
            if not reached < current - _SETTLED * abs(current):
                break
            solution, current = found, reached
        return replace(solution, n_iter=rounds)

    def _tried(self, problem: Problem, solution: Solution) -> tuple[np.ndarray, np.ndarray] | None:
        """Return where the first helpful move leads, others refitted; None if none helps."""
        current = _objective(problem, solution)
        model = _QuadraticModel(problem, solution)
        for move in model.ranked():
            support, start = model.after(move)
            part = replace(
                problem,
                design=problem.design.columns(support),
                penalty=problem.penalty.restricted(support),
            )
            found = self._descent.run(part, start, np.array(solution.intercept))
            if _objective(part, found) < current - _SETTLED * abs(current):
                coef = np.zeros_like(solution.coef)
                coef[support] = found.coef
                return coef, found.intercept
        return None


def _objective(problem: Problem, solution: Solution) -> float:
    return problem.objective(solution.coef, problem.predict(solution.coef, solution.intercept))


def _costs(problem: Problem) -> np.ndarray:
    """Return what each column costs, beside squared norms that are not halved."""
    strength = np.asarray(problem.penalty.strength)  # type: ignore[attr-defined]
    return 2 * np.broadcast_to(strength, problem.coef_shape).astype(float)


def _unit_columns(problem: Problem) -> WeightedColumns:
    return WeightedColumns(problem.design.matrix, problem.weight, problem.intercept)


def _moved_squares(problem: Problem, solution: Solution) -> tuple[np.ndarray, np.ndarray] | None:
    """Make the best moves of least squares until none helps; None if none did."""
    columns = problem.once(_unit_columns)
    target, centring = columns.target(problem.y)
    cost = _costs(problem)
    support = np.flatnonzero(problem.penalty.generalized_support(solution.coef))
    fit, moved = SupportFit(columns, target, support), False
    while (move := fit.best_move(cost)).gain > max(fit.rounding, _SETTLED * fit.loss):
        fit.make(move)
        moved = True
    if not moved:
        return None
    coef = np.zeros_like(solution.coef)
    coef[fit.support] = fit.coefficients / columns.scale[fit.support]
    return coef, np.asarray(centring.intercept(coef))


class _QuadraticModel:
    """The quadratic model of a loss around a solution, and what moves from its support gain."""

    def __init__(self, problem: Problem, solution: Solution) -> None:
        prediction = problem.predict(solution.coef, solution.intercept)
        here = (problem.y, prediction, problem.weight)
        slope, curvature = problem.datafit.gradient(*here), problem.datafit.curvature(*here)
        # Samples that are fitted to saturation have no curvature; a little bounds the model.
        curvature = np.maximum(curvature, 1e-8 * max(float(curvature.max()), 1e-300))
        self.problem, self.cost = problem, _costs(problem)
        self.columns = WeightedColumns(problem.design.matrix, curvature, problem.intercept)
        self.target, _ = self.columns.target(prediction - slope / curvature)
        support = np.flatnonzero(problem.penalty.generalized_support(solution.coef))
        self.fit = SupportFit(self.columns, self.target, support)

    def ranked(self) -> list[Move]:
        """Return the moves that look best, the best first."""
        fit, cost = self.fit, self.cost
        here = cost[fit.support]
        moves = [Move(gain, place, None) for place, gain in enumerate(here - fit.exits())]
        entries = fit.entries() - cost
        entries[fit.support] = -np.inf
        first = np.argsort(-entries)[:_PROMISING]
        moves += [Move(entries[column], None, int(column)) for column in first]
        swaps = fit.exchanges(first) + here[:, None] - cost[first]
        for flat in np.argsort(-swaps, axis=None)[:_TRIED]:
            place, at = np.unravel_index(flat, swaps.shape)
            if first[at] not in fit.support:
                moves.append(Move(swaps[place, at], int(place), int(first[at])))
        # What the model sees as a loss of less than a column's cost may be a gain.
        hopeful = [move for move in moves if move.gain > -cost.max()]
        return sorted(hopeful, key=lambda move: -move.gain)[:_TRIED]

    def after(self, move: Move) -> tuple[np.ndarray, np.ndarray]:
        """Return the support after a move, and the coefficients that minimise the model there."""
        support = self.fit.support
        if move.place is not None:
            support = np.delete(support, move.place)
        if move.column is not None:
            support = np.append(support, move.column)
        chosen = self.columns.take(support)
        coef = np.linalg.lstsq(chosen, self.target)[0] / self.columns.scale[support]
        penalty = self.problem.penalty
        coef = np.maximum(coef, 0) if penalty.positive else coef  # type: ignore[attr-defined]
        return support, coef.astype(self.problem.design.dtype)
