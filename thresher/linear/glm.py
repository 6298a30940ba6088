"""Sparse generalised linear models: any datafit with any penalty, and classification."""

from __future__ import annotations

__all__ = ["SparseGLM", "SparseLogistic"]

from typing import Any

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from ..core.errors import DataError, OptionError
from .datafits import Datafit, Logistic, Multinomial, Poisson, Squares
from .model import PenalizedModel, SparseRegressor
from .penalties import L1, L1L2, Penalty, Rows
from .solvers import Problem, Solver


class SparseGLM(SparseRegressor):
    """Any datafit with any penalty.

    Parameters
    ----------
    datafit : Datafit, optional
        The loss, from :mod:`thresher.linear.datafits`; least squares by default.
    penalty : Penalty, optional
        The regulariser, from :mod:`thresher.linear.penalties`; the L1 norm by default.
    alpha : float, default 1
        Factor of the penalty.
    solver : Solver, optional
        From :mod:`thresher.linear.solvers`; by default the fastest that takes the pair.
    fit_intercept : bool, default True
        Whether to fit a constant.
    tol : float, default 1e-6
        Duality gap to reach where it is known, else violation of optimality; relative to
        its scale. Not used when `solver` is given.
    max_iter : int, default 1000
        Rounds of the solver. Not used when `solver` is given.
    warm_start : bool, default False
        Whether a refit starts from the last coefficients.

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

    Raises
    ------
    OptionError
        If the given solver cannot take the pair.

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import SparseGLM, datafits, penalties
    >>> X = np.random.default_rng(0).standard_normal((100, 20))
    >>> y = 3 * X[:, 0]
    >>> model = SparseGLM(datafits.Huber(), penalties.MCP(0.2)).fit(X, y)
    >>> np.flatnonzero(model.coef_)
    array([0])
    """

    def __init__(
        self,
        datafit: Datafit | None = None,
        penalty: Penalty | None = None,
        alpha: float = 1.0,
        *,
        solver: Solver | None = None,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
        warm_start: bool = False,
    ) -> None:
        self.datafit = datafit
        self.penalty = penalty
        self.alpha = alpha
        self.solver = solver
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start

    def _datafit(self) -> Datafit:
        return Squares() if self.datafit is None else self.datafit

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        return (L1() if self.penalty is None else self.penalty).scaled(alpha)

    def _solver(self, problem: Problem) -> Solver:
        return super()._solver(problem) if self.solver is None else self.solver

    def predict(self, X: Any) -> np.ndarray:
        """Predict the mean of the target (counts for a log link, else the linear predictor).

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_outputs)
            Predictions; for the Cox datafit the log hazard ratio.
        """
        linear = self._linear_prediction(X)
        return np.exp(linear) if isinstance(self._datafit(), Poisson) else linear


class SparseLogistic(ClassifierMixin, PenalizedModel):
    """Logistic regression with a sparse penalty, for two or more classes.

    Minimises the mean logistic loss (softmax cross-entropy) plus
    ``alpha (l1_ratio ||w||_1 + (1 - l1_ratio) ||w||^2 / 2)``.

    Parameters
    ----------
    alpha : float, default 0.01
        Strength. scikit-learn's ``C`` is ``1 / (n_samples * alpha)``.
    l1_ratio : float, default 1
        Share of the L1 norm.
    penalty : Penalty, optional
        Another penalty, scaled by `alpha`; `l1_ratio` is then not used.
    share_features : bool, default False
        With more than two classes, whether a feature is used by all classes or by none.
    fit_intercept : bool, default True
        Whether to fit constants.
    tol : float, default 1e-6
        Duality gap (violation of optimality for more than two classes) to reach, relative
        to its scale.
    max_iter : int, default 1000
        Rounds of working sets.
    warm_start : bool, default False
        Whether a refit starts from the last coefficients.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels.
    coef_ : array of shape (1, n_features) or (n_classes, n_features)
        Coefficients.
    intercept_ : array of shape (1,) or (n_classes,)
        Constants.
    criterion_ : float
        Relative duality gap or violation at the end.
    n_iter_ : int
        Rounds of working sets.
    """

    def __init__(
        self,
        alpha: float = 0.01,
        l1_ratio: float = 1.0,
        *,
        penalty: Penalty | None = None,
        share_features: bool = False,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
        warm_start: bool = False,
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.penalty = penalty
        self.share_features = share_features
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start

    def _datafit(self) -> Datafit:
        return Logistic() if len(self.classes_) == 2 else Multinomial()

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        if self.penalty is not None:
            return self.penalty.scaled(alpha)
        if not 0 <= self.l1_ratio <= 1:
            raise OptionError(f"l1_ratio must lie between 0 and 1, got {self.l1_ratio}")
        ridge = alpha * (1 - self.l1_ratio)
        if self.share_features and len(self.classes_) > 2:
            return Rows(L1L2(alpha * self.l1_ratio, ridge=ridge))
        return L1L2(alpha * self.l1_ratio, ridge=ridge)

    def _validated(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        X, y = validate_data(
            self, X, y, accept_sparse="csc", dtype=[np.float64, np.float32], order="F"
        )
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(
                f"need samples of two classes or more, got one class: {self.classes_[0]!r}"
            )
        return X, codes

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        if len(self.classes_) == 2:
            return 2.0 * y - 1.0
        return np.eye(len(self.classes_))[y]

    def _keep(self, solution: Any) -> None:
        super()._keep(solution)
        self.coef_ = np.atleast_2d(self.coef_)
        self.intercept_ = np.atleast_1d(np.asarray(self.intercept_))

    def _start(self, problem: Problem) -> tuple:
        if self.coef_.T.reshape(-1).size != np.prod(problem.coef_shape):
            return None, None
        shape = problem.coef_shape
        return self.coef_.T.reshape(shape), np.reshape(self.intercept_, shape[1:])

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the linear predictor.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_classes)
            Log odds of the second class, or one score per class.
        """
        scores = self._linear_prediction(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of every class, of shape (n_samples, n_classes)."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([expit(-scores), expit(scores)])
        return softmax(scores, axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of every sample."""
        scores = self.decision_function(X)
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[codes]
