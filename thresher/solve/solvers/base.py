"""What every solver offers."""

from __future__ import annotations

__all__ = ["Need", "Solver"]

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ...core.errors import OptionError
from ...core.options import check_number, check_whole
from ..problem import Problem, Solution
from .conditioning import condition


class Need(NamedTuple):
    """What a solver needs of a problem.

    Parameters
    ----------
    met : callable
        Tells whether it is so, of a solver and a problem that meets the needs before.
    otherwise : str
        What is said where it is not, with what to do instead.
    """

    met: Callable[[Any, Any], Any]
    otherwise: str


@dataclass(frozen=True)
class Solver(ABC):
    """A way to minimise a datafit plus a penalty.

    Parameters
    ----------
    tol : float, default 1e-6
        Relative to the scale of the criterion: the objective at zero for the duality gap,
        the violation at zero for the optimality violation.
    max_iter : int, default 1000
        Rounds of the outer loop.
    """

    tol: float = 1e-6
    max_iter: int = 1000

    #: Whether losses without a derivative everywhere are taken.
    takes_kinks: ClassVar[bool] = False
    #: What is needed of a problem besides; each may count on those before it.
    needs: ClassVar[tuple[Need, ...]] = ()

    def check_options(self) -> None:
        """Raise OptionError if an option is out of range; classes with more options add theirs."""
        check_number("tol", self.tol)
        check_whole("max_iter", self.max_iter)

    def refusal(self, problem: Problem) -> str | None:
        """Say why the solver cannot take the pair of datafit and penalty; None if it can."""
        if not (problem.datafit.smooth or self.takes_kinks):
            return "the loss has a kink; use StochasticModels"
        return next((need.otherwise for need in self.needs if not need.met(self, problem)), None)

    @abstractmethod
    def run(self, problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> Solution:
        """Minimise from the given start; `coef` may be changed."""

    def solve(
        self,
        problem: Problem,
        coef: np.ndarray | None = None,
        intercept: np.ndarray | float | None = None,
    ) -> Solution:
        """Minimise the problem.

        Parameters
        ----------
        problem : Problem
            What to minimise.
        coef, intercept : arrays, optional
            Where to start (warm start); zero coefficients and the best constant by default.

        Returns
        -------
        Solution
            The coefficients, and the criterion that was reached.

        Raises
        ------
        OptionError
            If an option is out of range, or the solver cannot take the pair of datafit and
            penalty; the message says why.
        DataError
            If the squares of a column leave the range of double precision.
        """
        self.check_options()
        refusal = problem.penalty.refusal(problem.coef_shape) or self.refusal(problem)
        if refusal:
            raise OptionError(
                f"{type(self).__name__} cannot solve {type(problem.datafit).__name__} with "
                f"{type(problem.penalty).__name__}: {refusal}"
            )
        dtype = problem.design.dtype
        if coef is None:
            start = np.zeros(problem.coef_shape, dtype=dtype)
        else:
            with np.errstate(over="ignore"):  # what overflows is not started from
                start = np.array(coef, dtype=dtype, order="C")
        if start.shape != problem.coef_shape:
            raise OptionError(
                f"coef has shape {start.shape}, the problem needs {problem.coef_shape}"
            )
        if intercept is None:
            intercept = problem.best_constant
        restated = condition(problem)
        point = restated.start(start, np.asarray(intercept, dtype=float))
        if coef is not None:
            point = _finite_start(restated.problem, *point)
        solution = self.run(restated.problem, *point)
        solution = _judged(restated.problem, solution)
        stalled = not solution.converged and solution.n_iter < self.max_iter
        return replace(restated.finish(solution, dtype), stalled=stalled)


def _finite_start(
    problem: Problem, coef: np.ndarray, intercept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the start, or one where the objective is finite: elsewhere no gap is a bound.

    A warm start may come from a problem without the constraints of this one, or from data in
    units that its precision does not hold.
    """
    penalty = problem.penalty
    if np.isfinite(penalty.value(coef)) and _loss_is_finite(problem, coef, intercept):
        return coef, intercept
    with np.errstate(all="ignore"):
        nearest = penalty.prox(coef.astype(float), 0.0).astype(coef.dtype)
    if np.isfinite(penalty.value(nearest)) and _loss_is_finite(problem, nearest, intercept):
        return nearest, intercept
    return np.zeros_like(coef), problem.best_constant


def _loss_is_finite(problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> bool:
    if problem.datafit.finite:  # what nearly all losses are costs no look at the design
        return True
    prediction = problem.predict(coef, intercept)
    return bool(np.isfinite(problem.datafit.value(problem.y, prediction, problem.weight)))


def _judged(problem: Problem, solution: Solution) -> Solution:
    """Return the solution, not converged where its loss is infinite."""
    if _loss_is_finite(problem, solution.coef, solution.intercept):
        return solution
    return replace(solution, criterion=np.inf, converged=False)
