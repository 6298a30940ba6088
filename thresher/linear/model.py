"""What the penalised estimators share: checking data, solving, predicting, paths."""

from __future__ import annotations

__all__ = ["PenalizedModel", "SparseRegressor"]

from abc import abstractmethod
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .datafits import Datafit, Squares
from .path import Path, alpha_grid, solve_path
from .penalties import Penalty
from .solvers import (
    CoordinateDescent,
    GroupDescent,
    LocalSearch,
    Problem,
    ProximalGradient,
    Solution,
    Solver,
)


class PenalizedModel(BaseEstimator):
    """A linear model fitted by minimising a datafit plus a penalty.

    Subclasses say which datafit and penalty; parameters called ``fit_intercept``, ``tol``,
    ``max_iter`` and ``warm_start`` are read if they have them.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _datafit(self) -> Datafit:
        return Squares()

    @abstractmethod
    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        """Return the penalty of strength `alpha` for a design of so many columns."""

    def _solver(self, problem: Problem) -> Solver:
        """Return the fastest solver that takes the problem."""
        for kind in (LocalSearch, CoordinateDescent, GroupDescent):
            solver = kind(tol=self.tol, max_iter=self.max_iter)
            if solver.refusal(problem) is None:
                return solver
        return ProximalGradient(tol=self.tol, max_iter=10 * self.max_iter)

    def _validated(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        return validate_data(
            self,
            X,
            y,
            accept_sparse="csc",
            dtype=[np.float64, np.float32],
            order="F",
            y_numeric=True,
            multi_output=self._datafit().multiple_outputs,
        )

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        """Return the target as the datafit takes it."""
        return y

    def _problem(self, X: Any, y: Any, sample_weight: Any, alpha: float) -> Problem:
        X, y = self._validated(X, y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=float)
        target = self._encoded(y)
        datafit = self._datafit()
        penalty = self._penalty(X.shape[1], alpha)
        return Problem.build(X, target, datafit, penalty, sample_weight, self.fit_intercept)

    def _keep(self, solution: Solution) -> None:
        self.coef_ = np.ascontiguousarray(solution.coef.T)
        self.intercept_ = (
            solution.intercept if solution.intercept.ndim else float(solution.intercept)
        )
        self.n_iter_ = max(solution.n_iter, 1)
        self.criterion_ = solution.criterion

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PenalizedModel:
        """Fit the model.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features. Float32 is kept; anything else becomes float64.
        y : array of shape (n_samples,) or (n_samples, n_outputs)
            Target.
        sample_weight : array of shape (n_samples,), optional
            Relative weights, not negative.

        Returns
        -------
        self
            With ``coef_``, ``intercept_``, ``n_iter_`` and ``criterion_`` (the relative
            duality gap, or the relative violation of optimality).

        Warns
        -----
        ConvergenceWarning
            If the tolerance was not met; the message states what was reached.
        """
        problem = self._problem(X, y, sample_weight, self.alpha)
        start: tuple = (None, None)
        if getattr(self, "warm_start", False) and hasattr(self, "coef_"):
            start = self._start(problem)
        solver = self._solver(problem)
        self._keep(solver.solve(problem, *start).warn_unless_converged(solver.tol))
        return self

    def _start(self, problem: Problem) -> tuple:
        if self.coef_.T.shape != problem.coef_shape:
            return None, None
        return self.coef_.T, self.intercept_

    def path(
        self,
        X: Any,
        y: Any,
        alphas: Any = None,
        n_alphas: int = 50,
        eps: float = 1e-2,
        sample_weight: Any = None,
    ) -> Path:
        """Solve for a decreasing sequence of strengths, warm-started.

        Parameters
        ----------
        X, y, sample_weight
            As for :meth:`fit`.
        alphas : array, optional
            Factors of the penalty at ``alpha=1``. By default `n_alphas` of them, falling
            geometrically from the smallest that gives zeros to `eps` times it.
        n_alphas : int, default 50
            How many strengths.
        eps : float, default 1e-2
            Ratio of the smallest to the largest.

        Returns
        -------
        Path
            Strengths, coefficients, intercepts and convergence of each.
        """
        problem = self._problem(X, y, sample_weight, 1.0)
        grid = alpha_grid(problem, n_alphas, eps) if alphas is None else np.asarray(alphas, float)
        return solve_path(problem, grid, self._solver(problem))

    def _linear_prediction(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(
            self, X, accept_sparse=("csr", "csc"), dtype=[np.float64, np.float32], reset=False
        )
        return np.asarray(X @ self.coef_.T) + self.intercept_


class SparseRegressor(RegressorMixin, PenalizedModel):
    """A penalised model of a real target."""

    def predict(self, X: Any) -> np.ndarray:
        """Predict the target.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_outputs)
            Predictions.
        """
        return self._linear_prediction(X)
