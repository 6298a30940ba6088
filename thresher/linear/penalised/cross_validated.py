"""Choosing the strength of the penalty by cross-validation or an information criterion."""

from __future__ import annotations

__all__ = ["CrossValidated"]

import warnings
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from ...core.errors import DataError, OptionError
from ...core.options import check_choice, check_number
from ...solve.design import thread_count
from ...solve.path import (
    Path,
    alpha_grid,
    given_alphas,
    solve_closely,
    solve_path,
    warn_of_unmet_tolerance,
)
from ...solve.problem import Problem, Solution
from ...solve.solvers import Solver
from .folds import Judge, check_fold, fold_path
from .information import CRITERIA, information
from .model import PenalizedModel
from .parameters import Jobs, Ratio, Whole, check_parameters


@dataclass(eq=False, repr=False)
class CrossValidated(PenalizedModel):
    """A model whose strength is chosen along a path, and a refit.

    Parameters
    ----------
    n_alphas : int, default 50
        How many strengths are tried.
    eps : float, default 1e-3
        Ratio of the smallest strength to the largest, at which all that is penalised vanishes;
        1e-2 for logistic losses, whose fits grow without end where classes can be separated.
    alphas : int or array, optional
        The strengths to try, instead of `n_alphas` and `eps`; needed where no strength makes
        all coefficients vanish. A number is another way to say `n_alphas`.
    selection : {"min", "one-se", "aic", "bic", "ebic"}, default "min"
        What decides: the lowest mean held-out loss; the largest strength whose loss is within one
        standard error of it; or an information criterion of fits to all samples, for which no
        folds are needed (see :func:`~thresher.linear.penalised.information.information`).
    scoring : str, callable or None, default None
        What held-out samples are judged by instead of the loss: a name or a scorer, as everywhere
        in scikit-learn, larger being better. Weights of samples are passed on where they differ.
    cv : int, splitter or iterable, optional
        As everywhere in scikit-learn; five folds by default.
    n_jobs : int, optional
        Folds at a time, in threads that share the cores between them; one by default.

    Attributes
    ----------
    alpha_ : float
        The strength that was chosen.
    alpha_one_se_ : float
        The largest strength whose mean held-out loss is within one standard error of the lowest.
    l1_ratio_ : float
        The share that was chosen, of estimators with an `l1_ratio`.
    alphas_ : array of shape (n_alphas,) or (n_ratios, n_alphas)
        The strengths, decreasing; a row for each share where `l1_ratio` is a list.
    cv_loss_ : array of shape (n_alphas, n_folds) or (n_ratios, n_alphas, n_folds)
        Held-out loss; the negative score where `scoring` is given.
    information_ : array of shape (n_alphas,) or (n_ratios, n_alphas)
        The criterion, instead of held-out losses, where one decides.
    """

    _: KW_ONLY
    n_alphas: Whole = 50
    eps: Ratio = 1e-3
    alphas: Any = None
    selection: str = "min"
    scoring: Any = None
    cv: Any = None
    n_jobs: Jobs = None
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
        """Choose the strength and fit at it.

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
            If the samples of a fold, or those outside it, weigh nothing; if the target outside a
            fold has no fit, such as a single class or survival times without an event; if a
            splitter holds out samples that it also fits.

        Warns
        -----
        ConvergenceWarning
            If the tolerance was not met; once for all fits inside the folds.
        UserWarning
            If the smallest strength of the grid was chosen, and a smaller one may be better.
        """
        return self._chosen(X, y, sample_weight, groups)

    def _checked(self) -> None:
        check_choice("selection", self.selection, ("min", "one-se", *CRITERIA))
        if self.scoring is not None:
            if self.selection in CRITERIA:
                raise OptionError(
                    f"scoring is {self.scoring!r}, but selection={self.selection!r} holds nothing "
                    "out; leave one of them out"
                )
            check_scoring(self, scoring=self.scoring)
        for model in self._candidates():
            check_parameters(model)

    def _candidates(self) -> list[Any]:
        """Return one estimator for every share of the L1 norm that is tried."""
        ratios: Any = getattr(self, "l1_ratio", None)
        if not _several(ratios):
            return [self]
        if not len(ratios):
            raise OptionError("l1_ratio is empty; give at least one share of the L1 norm")
        for ratio in ratios:
            check_number("l1_ratio", ratio, most=1.0)
        return [clone(self).set_params(l1_ratio=float(ratio)) for ratio in ratios]

    @property
    def _ratio(self) -> float:
        if not _several(self.l1_ratio):  # type: ignore[attr-defined]
            return self.l1_ratio  # type: ignore[attr-defined]
        check_is_fitted(self, "l1_ratio_")  # of several, a path is followed at the chosen one
        return self.l1_ratio_

    def _chosen(self, X: Any, y: Any, sample_weight: Any, groups: Any, offset: Any = None) -> Any:
        X, y, weight = self._prepared(X, y, sample_weight)
        if self.scoring is not None and offset is not None:
            raise OptionError(
                "scoring takes no offset and no exposure, as scorers call predict(X) alone; leave "
                "scoring out to judge by the loss"
            )
        candidates = self._candidates()
        if hasattr(self, "classes_"):
            for model in candidates:
                model.classes_ = self.classes_
        first = candidates[0]._built(X, y, weight, 1.0, offset)
        problems = [first.with_penalty(model._penalty(X.shape[1], 1.0)) for model in candidates]
        grids = [self._grid(problem) for problem in problems]
        solver = self._solver(first)
        if self.selection in CRITERIA:
            judged = self._by_information(problems, grids, solver)
        else:
            target = self.classes_[y] if hasattr(self, "classes_") else y
            splits = self._splits(X, target, groups, first)
            scorer = None if self.scoring is None else self._scorer(X, target, first)
            judged = self._by_folds(problems, grids, solver, splits, scorer)
        ratio, place = judged
        self.alpha_ = float(grids[ratio][place])
        if hasattr(self, "l1_ratio"):
            self.l1_ratio_ = float(candidates[ratio].l1_ratio)
        self.alphas_ = np.stack(grids) if _several(getattr(self, "l1_ratio", None)) else grids[0]
        if self.alphas is None or np.ndim(self.alphas) == 0:
            _warn_of_the_end(grids[ratio], place)
        solution = _refit(problems[ratio], grids[ratio][: place + 1], solver)
        self._keep(solution.warn_unless_converged(solver.tol, stacklevel=4))
        return self

    def _grid(self, problem: Problem) -> np.ndarray:
        if self.alphas is None or (np.ndim(self.alphas) == 0 and not isinstance(self.alphas, str)):
            count = self.n_alphas if self.alphas is None else self.alphas
            return alpha_grid(problem, count, self.eps)
        return given_alphas(self.alphas)

    def _by_information(
        self, problems: list[Problem], grids: list[np.ndarray], solver: Solver
    ) -> tuple[int, int]:
        """Return which share and strength has the lowest criterion."""
        paths = [
            solve_path(problem, grid, solver) for problem, grid in zip(problems, grids, strict=True)
        ]
        warn_of_unmet_tolerance(paths, solver.tol, "fits of the path", stacklevel=5)
        values = np.stack(
            [
                information(problem, path, self.selection)
                for problem, path in zip(problems, paths, strict=True)
            ]
        )
        several = _several(getattr(self, "l1_ratio", None))
        self.information_ = values if several else values[0]
        ratio, place = np.unravel_index(np.argmin(values), values.shape)
        return int(ratio), int(place)

    def _by_folds(
        self,
        problems: list[Problem],
        grids: list[np.ndarray],
        solver: Solver,
        splits: list[tuple[np.ndarray, np.ndarray]],
        scorer: Judge | None,
    ) -> tuple[int, int]:
        """Return which share and strength the held-out losses choose."""
        folds = [
            self._fold_paths(problem, grid, solver, splits, scorer)
            for problem, grid in zip(problems, grids, strict=True)
        ]
        paths = [path for each in folds for path, _ in each]
        warn_of_unmet_tolerance(paths, solver.tol, "fits inside folds", stacklevel=5)
        losses = np.stack([np.stack([loss for _, loss in each], axis=1) for each in folds])
        self.cv_loss_ = losses if _several(getattr(self, "l1_ratio", None)) else losses[0]
        means = losses.mean(axis=2)
        ratio, place = (int(k) for k in np.unravel_index(np.argmin(means), means.shape))
        error = 0.0
        if losses.shape[2] > 1:
            spread = losses[ratio, place].std(ddof=1)
            error = float(spread / np.sqrt(losses.shape[2]))
        within = int(np.argmax(means[ratio] <= means[ratio, place] + error))
        self.alpha_one_se_ = float(grids[ratio][within])
        return ratio, within if self.selection == "one-se" else place

    def _splits(
        self, X: Any, target: np.ndarray, groups: Any, problem: Problem
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the folds, each checked: a splitter is given what scikit-learn would give it."""
        cv = check_cv(self.cv, target, classifier=hasattr(self, "classes_"))
        rows = np.arange(len(target))
        splits = [(rows[train], rows[test]) for train, test in cv.split(X, target, groups)]
        if not splits:
            raise DataError(f"{cv!r} returns no folds; use cv=5, or another splitter")
        for k, (train, test) in enumerate(splits):
            check_fold(problem, k, train, test)
        return splits

    def _scorer(self, X: Any, target: np.ndarray, problem: Problem) -> Judge:
        """Return what judges coefficients by the negative score of held-out samples."""
        scorer = check_scoring(self, scoring=self.scoring)

        def judge(test: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
            held_out = X[test], target[test]
            weight = {} if problem.uniform else {"sample_weight": problem.weight[test]}
            model = clone(self)
            model.n_features_in_ = X.shape[1]
            if hasattr(self, "classes_"):
                model.classes_ = self.classes_

            def lost(coef: np.ndarray, intercept: np.ndarray) -> float:
                model._keep(Solution(coef, intercept, 0.0, "", 1, True))
                return -float(scorer(model, *held_out, **weight))

            return lost

        return judge

    def _fold_paths(
        self,
        problem: Problem,
        alphas: np.ndarray,
        solver: Solver,
        splits: list[tuple[np.ndarray, np.ndarray]],
        scorer: Judge | None,
    ) -> list[tuple[Path, np.ndarray]]:
        """Return the path and the held-out losses of every fold."""
        jobs = max(min(effective_n_jobs(self.n_jobs), len(splits)), 1)
        share = max(thread_count() // jobs, 1)
        # The compiled descents release the interpreter, so that threads run side by side.
        with threadpool_limits(limits=share if jobs > 1 else None):
            return list(
                Parallel(n_jobs=jobs, prefer="threads")(
                    delayed(fold_path)(problem, alphas, solver, train, test, share, scorer)
                    for train, test in splits
                )
            )


def _several(ratios: Any) -> bool:
    return isinstance(ratios, (Sequence, np.ndarray)) and not isinstance(ratios, str)


def _warn_of_the_end(alphas: np.ndarray, place: int) -> None:
    if len(alphas) > 1 and place == len(alphas) - 1:
        warnings.warn(
            f"the smallest strength of the grid, {alphas[-1]:.3g}, was chosen, so that a smaller "
            "one may be better; lower eps, or give alphas",
            UserWarning,
            stacklevel=4,
        )


def _refit(problem: Problem, alphas: np.ndarray, solver: Solver) -> Solution:
    """Fit all samples at the last of the strengths.

    Under a concave penalty there are many stationary points: only the one at the end of the path
    is the model that the folds judged.
    """
    strengths = alphas[-1:] if problem.penalty.convex else alphas
    solution: Solution | None = None
    penalty = problem.penalty
    for alpha in strengths:
        problem = problem.with_penalty(penalty.scaled(float(alpha)))
        start = (None, None) if solution is None else (solution.coef, solution.intercept)
        problem, solution = solve_closely(problem, solver, *start)
    assert solution is not None  # a grid is not empty
    return solution
