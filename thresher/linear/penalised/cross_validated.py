"""Choosing the strength of the penalty by cross-validation along a path."""

from __future__ import annotations

__all__ = ["CrossValidated"]

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.model_selection import check_cv
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping
from threadpoolctl import threadpool_limits

from ...core.errors import DataError
from ...solve.design import Design, kernel_threads, thread_count
from ...solve.path import (
    Path,
    alpha_grid,
    given_alphas,
    solve_path,
    warn_of_unmet_tolerance,
)
from ...solve.solvers import Problem, Solver
from .model import PenalizedModel


@dataclass(eq=False, repr=False)
class CrossValidated(PenalizedModel):
    """A model whose strength is chosen: one path per fold, lowest mean loss, and a refit.

    Parameters
    ----------
    n_alphas : int, default 50
        How many strengths are tried.
    eps : float, default 1e-2
        Ratio of the smallest strength to the largest, at which all coefficients vanish.
    alphas : array, optional
        The strengths to try, instead of `n_alphas` and `eps`; needed where no strength makes
        all coefficients vanish.
    cv : int, splitter or iterable, optional
        As everywhere in scikit-learn; five folds by default.
    n_jobs : int, optional
        Folds at a time, in threads that share the cores between them; one by default.

    Attributes
    ----------
    alpha_ : float
        The strength of lowest mean held-out loss.
    alphas_ : array of shape (n_alphas,)
        The strengths, decreasing.
    cv_loss_ : array of shape (n_alphas, n_folds)
        Held-out loss.
    """

    _: KW_ONLY
    n_alphas: int = 50
    eps: float = 1e-2
    alphas: Any = None
    cv: Any = None
    n_jobs: int | None = None
    # Routed to the splitter, as in scikit-learn, not requested by the estimator itself.
    __metadata_request__fit = {"groups": UNUSED}  # noqa: RUF012

    def get_metadata_routing(self) -> MetadataRouter:
        """Return who takes which metadata: ``fit`` passes `groups` on to the splitter."""
        passed_on = MethodMapping().add(caller="fit", callee="split")
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(splitter=check_cv(self.cv), method_mapping=passed_on)
        )

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None) -> Any:
        """Choose the strength by cross-validation and fit at it.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,) or (n_samples, n_outputs)
            Target.
        sample_weight : array of shape (n_samples,), optional
            Relative weights, not negative; they count in the held-out loss too.
        groups : array of shape (n_samples,), optional
            Groups of samples for `cv`, such as ``GroupKFold``.

        Returns
        -------
        self
            With ``alpha_``, ``alphas_``, ``cv_loss_`` (strengths by folds) and what the
            estimator without cross-validation has.

        Raises
        ------
        DataError
            If the samples of a fold, or those outside it, weigh nothing, or the target outside a
            fold is not one that the loss takes, such as survival times without an event.

        Warns
        -----
        ConvergenceWarning
            If the tolerance was not met; once for all fits inside the folds.
        """
        problem = self._problem(X, y, sample_weight, 1.0)
        if self.alphas is None:
            alphas = alpha_grid(problem, self.n_alphas, self.eps)
        else:
            alphas = given_alphas(self.alphas)
        solver = self._solver(problem)
        folds = self._fold_paths(problem, alphas, solver, groups)
        warn_of_unmet_tolerance([path for path, _ in folds], solver.tol, "fits inside folds")
        self.alphas_ = alphas
        self.cv_loss_ = np.stack([losses for _, losses in folds], axis=1)
        self.alpha_ = float(alphas[np.argmin(self.cv_loss_.mean(axis=1))])
        chosen = problem.with_penalty(problem.penalty.scaled(self.alpha_))
        self._keep(solver.solve(chosen).warn_unless_converged(solver.tol))
        return self

    def _fold_paths(
        self, problem: Problem, alphas: np.ndarray, solver: Solver, groups: Any
    ) -> list[tuple[Path, np.ndarray]]:
        """Return the path and the held-out losses of every fold."""
        classifier = hasattr(self, "classes_")
        labels = problem.y if problem.y.ndim == 1 else problem.y.argmax(axis=1)
        cv = check_cv(self.cv, labels, classifier=classifier)
        splits = list(cv.split(np.empty((len(labels), 1)), labels, groups))
        for k, parts in enumerate(splits):
            for name, part in zip(("outside", "of"), parts, strict=True):
                if not problem.weight[part].sum() > 0:
                    raise DataError(
                        f"the samples {name} fold {k} weigh nothing together; leave samples of "
                        "weight zero out, or shuffle the folds"
                    )
            try:
                problem.datafit.check_target(problem.y[parts[0]])
            except DataError as error:
                raise DataError(
                    f"the samples outside fold {k} cannot be fitted: {error}; shuffle the folds, "
                    "as cv=KFold(5, shuffle=True, random_state=0) does, or take fewer"
                ) from None
        jobs = max(min(effective_n_jobs(self.n_jobs), len(splits)), 1)
        share = max(thread_count() // jobs, 1)
        # The compiled descents release the interpreter, so that threads run side by side.
        with threadpool_limits(limits=share if jobs > 1 else None):
            return list(
                Parallel(n_jobs=jobs, prefer="threads")(
                    delayed(_fold_path)(problem, alphas, solver, train, test, share)
                    for train, test in splits
                )
            )


def _fold_path(
    problem: Problem,
    alphas: np.ndarray,
    solver: Solver,
    train: np.ndarray,
    test: np.ndarray,
    threads: int,
) -> tuple[Path, np.ndarray]:
    weight = problem.weight[train]
    matrix = problem.design.matrix
    inside = Problem.build(
        Design(matrix[train]),
        problem.y[train],
        problem.datafit,
        problem.penalty,
        None if problem.uniform else weight,
        problem.intercept,
    )
    with kernel_threads(threads):
        path = solve_path(inside, alphas, solver)
    held_out = replace(problem, design=Design(matrix[test]), y=problem.y[test], _shared={})
    weight = problem.weight[test] / problem.weight[test].sum()
    losses = [
        problem.datafit.value(held_out.y, held_out.predict(coef, intercept), weight)
        for coef, intercept in zip(path.coefs, path.intercepts, strict=True)
    ]
    return path, np.array(losses)
