"""Choosing the strength of the penalty by cross-validation along a path."""

from __future__ import annotations

__all__ = ["ElasticNetCV", "GroupLassoCV", "LassoCV", "SparseLogisticCV"]

from dataclasses import replace
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.model_selection import check_cv

from .design import Design
from .glm import SparseLogistic
from .lasso import ElasticNet, GroupLasso, Lasso
from .path import alpha_grid, solve_path
from .solvers import Problem


class _CrossValidated:
    """Fits one path per fold, keeps the strength of lowest mean loss, and refits."""

    # What the estimator that this is mixed into provides.
    alphas: Any
    n_alphas: int
    eps: float
    cv: Any
    n_jobs: int | None
    _problem: Any
    _solver: Any
    _keep: Any

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Choose the strength by cross-validation and fit at it.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,)
            Target.
        sample_weight : array of shape (n_samples,), optional
            Relative weights, not negative; they count in the held-out loss too.

        Returns
        -------
        self
            With ``alpha_``, ``alphas_``, ``cv_loss_`` (strengths by folds) and what the
            estimator without cross-validation has.
        """
        problem = self._problem(X, y, sample_weight, 1.0)
        if self.alphas is None:
            alphas = alpha_grid(problem, self.n_alphas, self.eps)
        else:
            alphas = np.sort(np.array(self.alphas, dtype=np.float64))[::-1]
        classifier = hasattr(self, "classes_")
        labels = problem.y if problem.y.ndim == 1 else problem.y.argmax(axis=1)
        folds = check_cv(self.cv, labels, classifier=classifier)
        splits = list(folds.split(np.empty((len(labels), 1)), labels))
        solver = self._solver(problem.penalty, problem.datafit)
        # The compiled descents release the interpreter, so that threads run side by side.
        losses = Parallel(n_jobs=self.n_jobs, prefer="threads")(
            delayed(_fold_losses)(problem, alphas, solver, train, test) for train, test in splits
        )
        self.alphas_ = alphas
        self.cv_loss_ = np.stack(losses, axis=1)
        self.alpha_ = float(alphas[np.argmin(self.cv_loss_.mean(axis=1))])
        chosen = problem.with_penalty(problem.penalty.scaled(self.alpha_))
        self._keep(solver.solve(chosen).warn_unless_converged(solver.tol))
        return self


def _fold_losses(
    problem: Problem, alphas: np.ndarray, solver: Any, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
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
    path = solve_path(inside, alphas, solver)
    held_out = replace(problem, design=Design(matrix[test]), y=problem.y[test], _shared={})
    weight = problem.weight[test] / problem.weight[test].sum()
    return np.array(
        [
            problem.datafit.value(held_out.y, held_out.predict(coef, intercept), weight)
            for coef, intercept in zip(path.coefs, path.intercepts, strict=True)
        ]
    )


class LassoCV(_CrossValidated, Lasso):
    """Lasso with its strength chosen by cross-validation.

    Parameters
    ----------
    positive : bool, default False
        Whether coefficients are kept from falling below zero.
    n_alphas : int, default 50
        How many strengths are tried.
    eps : float, default 1e-2
        Ratio of the smallest strength to the largest, at which all coefficients vanish.
    alphas : array, optional
        The strengths to try, instead of `n_alphas` and `eps`.
    cv : int, splitter or iterable, optional
        As everywhere in scikit-learn; five folds by default.
    n_jobs : int, optional
        Folds at a time, in threads; one by default.
    fit_intercept : bool, default True
        Whether to fit a constant.
    tol : float, default 1e-6
        Relative tolerance of every fit.
    max_iter : int, default 1000
        Rounds of working sets of every fit.

    Attributes
    ----------
    alpha_ : float
        The strength of lowest mean held-out loss.
    alphas_ : array of shape (n_alphas,)
        The strengths, decreasing.
    cv_loss_ : array of shape (n_alphas, n_folds)
        Held-out loss.
    coef_, intercept_, criterion_, n_iter_
        Of the fit to all samples at ``alpha_``.
    """

    def __init__(
        self,
        *,
        positive: bool = False,
        n_alphas: int = 50,
        eps: float = 1e-2,
        alphas: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        super().__init__(positive=positive, fit_intercept=fit_intercept, tol=tol, max_iter=max_iter)
        self.n_alphas = n_alphas
        self.eps = eps
        self.alphas = alphas
        self.cv = cv
        self.n_jobs = n_jobs


class ElasticNetCV(_CrossValidated, ElasticNet):
    """Elastic net with its strength chosen by cross-validation.

    Parameters
    ----------
    l1_ratio : float, default 0.5
        Share of the L1 norm.
    positive : bool, default False
        Whether coefficients are kept from falling below zero.
    n_alphas : int, default 50
        How many strengths are tried.
    eps : float, default 1e-2
        Ratio of the smallest strength to the largest, at which all coefficients vanish.
    alphas : array, optional
        The strengths to try, instead of `n_alphas` and `eps`.
    cv : int, splitter or iterable, optional
        As everywhere in scikit-learn; five folds by default.
    n_jobs : int, optional
        Folds at a time, in threads; one by default.
    fit_intercept : bool, default True
        Whether to fit a constant.
    tol : float, default 1e-6
        Relative tolerance of every fit.
    max_iter : int, default 1000
        Rounds of working sets of every fit.

    Attributes
    ----------
    alpha_ : float
        The strength of lowest mean held-out loss.
    alphas_ : array of shape (n_alphas,)
        The strengths, decreasing.
    cv_loss_ : array of shape (n_alphas, n_folds)
        Held-out loss.
    coef_, intercept_, criterion_, n_iter_
        Of the fit to all samples at ``alpha_``.
    """

    def __init__(
        self,
        *,
        l1_ratio: float = 0.5,
        positive: bool = False,
        n_alphas: int = 50,
        eps: float = 1e-2,
        alphas: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        super().__init__(
            l1_ratio=l1_ratio,
            positive=positive,
            fit_intercept=fit_intercept,
            tol=tol,
            max_iter=max_iter,
        )
        self.n_alphas = n_alphas
        self.eps = eps
        self.alphas = alphas
        self.cv = cv
        self.n_jobs = n_jobs


class GroupLassoCV(_CrossValidated, GroupLasso):
    """Group Lasso with its strength chosen by cross-validation.

    Parameters
    ----------
    groups : array of int of shape (n_features,), optional
        Which group each feature belongs to, from 0; each its own by default.
    l1_ratio : float, default 0
        Share of the L1 norm.
    n_alphas : int, default 50
        How many strengths are tried.
    eps : float, default 1e-2
        Ratio of the smallest strength to the largest, at which all coefficients vanish.
    alphas : array, optional
        The strengths to try, instead of `n_alphas` and `eps`.
    cv : int, splitter or iterable, optional
        As everywhere in scikit-learn; five folds by default.
    n_jobs : int, optional
        Folds at a time, in threads; one by default.
    fit_intercept : bool, default True
        Whether to fit a constant.
    tol : float, default 1e-6
        Relative tolerance of every fit.
    max_iter : int, default 1000
        Rounds of working sets of every fit.

    Attributes
    ----------
    alpha_ : float
        The strength of lowest mean held-out loss.
    alphas_ : array of shape (n_alphas,)
        The strengths, decreasing.
    cv_loss_ : array of shape (n_alphas, n_folds)
        Held-out loss.
    coef_, intercept_, criterion_, n_iter_
        Of the fit to all samples at ``alpha_``.
    """

    def __init__(
        self,
        *,
        groups: Any = None,
        l1_ratio: float = 0.0,
        n_alphas: int = 50,
        eps: float = 1e-2,
        alphas: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        super().__init__(
            groups=groups,
            l1_ratio=l1_ratio,
            fit_intercept=fit_intercept,
            tol=tol,
            max_iter=max_iter,
        )
        self.n_alphas = n_alphas
        self.eps = eps
        self.alphas = alphas
        self.cv = cv
        self.n_jobs = n_jobs


class SparseLogisticCV(_CrossValidated, SparseLogistic):
    """Sparse logistic regression with its strength chosen by cross-validation.

    Parameters
    ----------
    l1_ratio : float, default 1
        Share of the L1 norm.
    share_features : bool, default False
        With more than two classes, whether a feature is used by all classes or by none.
    n_alphas : int, default 50
        How many strengths are tried.
    eps : float, default 1e-2
        Ratio of the smallest strength to the largest, at which all coefficients vanish.
    alphas : array, optional
        The strengths to try, instead of `n_alphas` and `eps`.
    cv : int, splitter or iterable, optional
        As everywhere in scikit-learn; five folds by default.
    n_jobs : int, optional
        Folds at a time, in threads; one by default.
    fit_intercept : bool, default True
        Whether to fit a constant.
    tol : float, default 1e-6
        Relative tolerance of every fit.
    max_iter : int, default 1000
        Rounds of working sets of every fit.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels.
    alpha_ : float
        The strength of lowest mean held-out loss.
    alphas_ : array of shape (n_alphas,)
        The strengths, decreasing.
    cv_loss_ : array of shape (n_alphas, n_folds)
        Held-out loss.
    coef_, intercept_, criterion_, n_iter_
        Of the fit to all samples at ``alpha_``.
    """

    def __init__(
        self,
        *,
        l1_ratio: float = 1.0,
        share_features: bool = False,
        n_alphas: int = 50,
        eps: float = 1e-2,
        alphas: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        super().__init__(
            l1_ratio=l1_ratio,
            share_features=share_features,
            fit_intercept=fit_intercept,
            tol=tol,
            max_iter=max_iter,
        )
        self.n_alphas = n_alphas
        self.eps = eps
        self.alphas = alphas
        self.cv = cv
        self.n_jobs = n_jobs
