"""What the penalised estimators share: checking data, solving, predicting, paths."""

from __future__ import annotations

__all__ = ["PenalizedModel", "SparseRegressor"]

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight, _num_samples, validate_data

from ...core.errors import DataError
from ...core.options import check_number, check_whole
from ...solve.datafits import Datafit, Squares
from ...solve.datafits.offset import known_part, with_offset
from ...solve.path import (
    Path,
    alpha_grid,
    given_alphas,
    solve_closely,
    solve_path,
    warn_of_unmet_tolerance,
)
from ...solve.penalties import Penalty
from ...solve.problem import Problem, Solution
from ...solve.solvers import Solver
from ...solve.solvers.choice import fastest
from ..predictor import LinearPredictor, LinearRegressor
from .parameters import Strength, Switch, Whole, check_parameters, nested, with_inner


@dataclass(eq=False, repr=False)
class PenalizedModel(LinearPredictor):
    """A linear model fitted by minimising a datafit plus a penalty.

    Subclasses say which datafit and penalty; parameters called ``alpha`` and ``warm_start``
    are read if they have them.

    Parameters
    ----------
    fit_intercept : bool, default True
        Whether to fit a constant, one per output.
    tol : float, default 1e-6
        Duality gap to reach where it is known (see
        :class:`~thresher.solve.solvers.duality.DualityGap`), else violation of optimality;
        relative to the objective, or the violation, with all coefficients zero.
    max_iter : int, default 1000
        Rounds of the solver.

    Attributes
    ----------
    coef_ : array of shape (n_features,) or (n_outputs, n_features)
        Coefficients.
    intercept_ : float or array of shape (n_outputs,)
        Constant.
    criterion_ : float
        Relative duality gap or violation at the end.
    n_iter_ : int
        Rounds of the solver.
    """

    _: KW_ONLY
    fit_intercept: Switch = True
    tol: Strength = 1e-6
    max_iter: Whole = 1000

    # By this scikit-learn's SelectFromModel knows that what is not zero is to be kept. Not a
    # parameter, but of the classes that name one so.
    penalty = "l1"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with `deep`, also those of parts, such as ``penalty__gamma``."""
        params = super().get_params(deep=deep)
        return params | nested(params) if deep else params

    def set_params(self, **params: Any) -> Any:
        """Set parameters, also those of parts, such as ``penalty__gamma``; return self."""
        outer = {name: value for name, value in params.items() if "__" not in name}
        super().set_params(**outer)
        for name, value in params.items():
            part, _, inner = name.partition("__")
            if not inner:
                continue
            if part not in self.get_params(deep=False):
                super().set_params(**{name: value})  # raises
            setattr(self, part, with_inner(getattr(self, part), part, inner, value))
        return self

    def _datafit(self) -> Datafit:
        return Squares()

    @property
    def _ratio(self) -> float:
        """Share of the L1 norm, of estimators that have one."""
        return self.l1_ratio  # type: ignore[attr-defined]

    @abstractmethod
    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        """Return the penalty of strength `alpha` for a design of so many columns."""

    def _solver(self, problem: Problem) -> Solver:
        """Return the fastest solver that takes the problem."""
        return fastest(problem, self.tol, self.max_iter)

    def _validated(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        datafit = self._datafit()
        y = datafit.target(y)
        shape = np.asarray(y).shape
        if not datafit.multiple_outputs and len(shape) == 2 and shape[1] > 1:
            raise DataError(
                f"y has {shape[1]} columns, and {type(self).__name__} fits one target; "
                "MultiTaskLasso and MultiTaskElasticNet fit several that share their features, "
                "sklearn.multioutput.MultiOutputRegressor each alone"
            )
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

    def _checked(self) -> None:
        """Raise OptionError if a parameter is wrong."""
        check_parameters(self)

    def _weighed(self, y: np.ndarray, sample_weight: Any) -> Any:
        """Return the weights of the samples, None for equal ones."""
        return sample_weight

    def _prepared(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, np.ndarray, Any]:
        """Return what was given, checked."""
        self._checked()
        X, y = self._validated(X, y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=float)
        return X, y, self._weighed(y, sample_weight)

    def _built(
        self, X: Any, y: np.ndarray, weight: Any, alpha: float, offset: Any = None
    ) -> Problem:
        """Return the problem of what was checked."""
        target, datafit = self._encoded(y), self._datafit()
        if offset is not None:
            target, datafit = with_offset(target, datafit, offset)
        penalty = self._penalty(X.shape[1], alpha)
        return Problem.build(X, target, datafit, penalty, weight, bool(self.fit_intercept))

    def _problem(
        self, X: Any, y: Any, sample_weight: Any, alpha: float, offset: Any = None
    ) -> Problem:
        return self._built(*self._prepared(X, y, sample_weight), alpha, offset)

    def _known(self, offset: Any, exposure: Any, samples: Any) -> Any:
        """Return the known part of the predictions of samples."""
        if exposure is None:
            return offset
        return known_part(self._datafit(), offset, exposure, _num_samples(samples))

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

        Raises
        ------
        OptionError
            If a parameter has a wrong type or lies outside its range.

        Warns
        -----
        ConvergenceWarning
            If the tolerance was not met; the message states what was reached.
        """
        return self._fitted(self._problem(X, y, sample_weight, getattr(self, "alpha", 1.0)))

    def _fitted(self, problem: Problem) -> Any:
        """Solve the problem, and keep the solution."""
        start: tuple = (None, None)
        if getattr(self, "warm_start", False) and hasattr(self, "coef_"):
            start = self._start(problem)
        solver = self._solver(problem)
        _, solution = solve_closely(problem, solver, *start)
        self._keep(solution.warn_unless_converged(solver.tol, stacklevel=4))
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
        *,
        max_features: int | None = None,
        max_explained: float | None = None,
        offset: Any = None,
        exposure: Any = None,
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
        max_features : int, optional
            The path ends before the first strength at which more features have a coefficient.
        max_explained : float, optional
            The path ends with the first strength that explains this share of the deviance: 0.999
            spares the fits that would only follow the noise.
        offset : array of shape (n_samples,) or (n_samples, n_outputs), optional
            Known part of the linear predictions.
        exposure : array of shape (n_samples,), optional
            Over what each target was gathered, for losses with a log link.

        Returns
        -------
        Path
            Strengths, coefficients, intercepts and convergence of each.

        Raises
        ------
        OptionError
            If no strength makes all coefficients zero, and no `alphas` are given; if the largest
            strength takes more than `max_features`.

        Warns
        -----
        ConvergenceWarning
            If the tolerance was not met everywhere; the message states how often, and the worst.
        """
        if max_features is not None:
            check_whole("max_features", max_features)
        if max_explained is not None:
            check_number("max_explained", max_explained, above=0.0, most=1.0)
        known = self._known(offset, exposure, X)
        problem = self._problem(X, y, sample_weight, 1.0, known)
        grid = alpha_grid(problem, n_alphas, eps) if alphas is None else given_alphas(alphas)
        solver = self._solver(problem)
        path = solve_path(problem, grid, solver, max_features, max_explained)
        warn_of_unmet_tolerance([path], solver.tol, "fits of the path")
        return path


class SparseRegressor(LinearRegressor, PenalizedModel):
    """A penalised model of a real target."""
