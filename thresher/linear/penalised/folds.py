"""One fold of a cross-validation: whether it can be judged, its path, and its held-out losses."""

from __future__ import annotations

__all__ = ["Judge", "check_fold", "fold_path"]

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...core.errors import DataError
from ...solve.design import Design, kernel_threads
from ...solve.path import Path, solve_path
from ...solve.problem import Problem
from ...solve.solvers import Solver

# Of rows that are held out, what tells how much coefficients and an intercept lose there.
Judge = Callable[[np.ndarray], Callable[[np.ndarray, np.ndarray], float]]


def check_fold(problem: Problem, k: int, train: np.ndarray, test: np.ndarray) -> None:
    """Raise DataError if a fold cannot be fitted or judged."""
    for name, part in (("outside", train), ("of", test)):
        if not problem.weight[part].sum() > 0:
            raise DataError(
                f"the samples {name} fold {k} weigh nothing together; leave samples of "
                "weight zero out, or shuffle the folds"
            )
    both = np.intersect1d(train, test)
    if len(both):
        raise DataError(
            f"fold {k} holds out {len(both)} samples that it also fits, the first at row "
            f"{both[0]}; their loss is no held-out loss"
        )
    lost = problem.datafit.degeneracy(problem.y[train], problem.weight[train], problem.intercept)
    if lost:
        raise DataError(
            f"the samples outside fold {k} cannot be fitted: {lost}; shuffle the folds, "
            "as cv=KFold(5, shuffle=True, random_state=0) does, or take fewer"
        )


def fold_path(
    problem: Problem,
    alphas: np.ndarray,
    solver: Solver,
    train: np.ndarray,
    test: np.ndarray,
    threads: int,
    scorer: Judge | None = None,
) -> tuple[Path, np.ndarray]:
    """Return the path of the samples outside a fold, and the losses of those of it.

    Parameters
    ----------
    problem : Problem
        Of all samples, at strength one.
    alphas : array of shape (n_alphas,)
        Strengths.
    solver : Solver
        What minimises.
    train, test : arrays of int
        Rows that are fitted, and rows that are held out.
    threads : int
        How many the kernels may use.
    scorer : Judge, optional
        What judges the rows that are held out; the loss by default.
    """
    weight = problem.weight[train]
    matrix = problem.design.matrix
    inside = Problem.build(
        Design(matrix[train]),
        problem.y[train],
        problem.datafit.of_samples(train),
        problem.penalty,
        None if problem.uniform else weight,
        problem.intercept,
    )
    with kernel_threads(threads):
        path = solve_path(inside, alphas, solver)
    lost = _loss_of(problem, test) if scorer is None else scorer(test)
    losses = [
        lost(coef, intercept) for coef, intercept in zip(path.coefs, path.intercepts, strict=True)
    ]
    return path, np.array(losses)


def _loss_of(problem: Problem, test: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
    """Return the loss of held-out rows as a function of coefficients and intercept."""
    held_out = replace(problem, design=Design(problem.design.matrix[test]), y=problem.y[test])
    weight = problem.weight[test] / problem.weight[test].sum()
    judge = problem.datafit.of_samples(test).exact
    return lambda coef, intercept: judge.value(
        held_out.y, held_out.predict(coef, intercept), weight
    )
