"""Which solver takes a problem, the fastest first."""

from __future__ import annotations

__all__ = ["fastest"]

from ..problem import Problem
from .base import Solver
from .class_descent import ClassDescent
from .descent import CoordinateDescent, GroupDescent
from .local_search import LocalSearch
from .proximal_gradient import ProximalGradient


def fastest(problem: Problem, tol: float = 1e-6, max_iter: int = 1000) -> Solver:
    """Return the fastest solver that takes the problem.

    Parameters
    ----------
    problem : Problem
        What is to be minimised.
    tol : float, default 1e-6
        Its tolerance.
    max_iter : int, default 1000
        Its rounds; of gradient steps ten times as many.
    """
    for kind in (LocalSearch, CoordinateDescent, GroupDescent, ClassDescent):
        solver = kind(tol=tol, max_iter=max_iter)
        if solver.refusal(problem) is None:
            return solver
    return ProximalGradient(tol=tol, max_iter=10 * max_iter)
