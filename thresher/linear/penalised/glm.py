"""Sparse generalised linear models: any datafit with any penalty, and classification."""

from __future__ import annotations

__all__ = ["SparseGLM", "SparseLogistic"]

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from ...core.errors import DataError
from ...solve.datafits import Datafit, Logistic, Multinomial, Squares
from ...solve.datafits.offset import checked_offset, with_offset
from ...solve.penalties import L1, L1L2, Penalty, Rows
from ...solve.problem import Problem
from ...solve.solvers import Solver
from .explained import explained_deviance
from .model import PenalizedModel, SparseRegressor
from .parameters import ClassWeight, Loss, Method, Regulariser, Share, Strength, Switch


class GLMModel(SparseRegressor):
    """Any datafit with any penalty, the strength left open."""

    datafit: Datafit | None
    penalty: Any
    solver: Solver | None

    def _datafit(self) -> Datafit:
        return Squares() if self.datafit is None else self.datafit

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        return (self.penalty if isinstance(self.penalty, Penalty) else L1()).scaled(alpha)

    def _solver(self, problem: Problem) -> Solver:
        return super()._solver(problem) if self.solver is None else self.solver

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        offset: Any = None,
        exposure: Any = None,
    ) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features. Float32 is kept; anything else becomes float64.
        y : array of shape (n_samples,) or (n_samples, n_outputs)
            Target, in a form that the datafit takes.
        sample_weight : array of shape (n_samples,), optional
            Relative weights, not negative.
        offset : array of shape (n_samples,) or (n_samples, n_outputs), optional
            Known part of the linear predictions.
        exposure : array of shape (n_samples,), optional
            Time, area or number over which each target was gathered, above zero, for losses with a
            log link (Poisson, Gamma, Tweedie): its logarithm is added to the offset.

        Returns
        -------
        self
            With ``coef_``, ``intercept_``, ``n_iter_`` and ``criterion_`` (the relative
            duality gap, or the relative violation of optimality).

        Raises
        ------
        OptionError
            If a parameter has a wrong type or lies outside its range, or the datafit takes no
            offset, or no exposure.
        DataError
            If the offset has another shape than the target, or is not finite; if an exposure is
            not above zero; if the target is degenerate, such as a single class.

        Warns
        -----
        ConvergenceWarning
            If the tolerance was not met; the message states what was reached.
        """
        alpha = getattr(self, "alpha", 1.0)
        known = self._known(offset, exposure, X)
        return self._fitted(self._problem(X, y, sample_weight, alpha, known))

    def predict(self, X: Any, offset: Any = None, exposure: Any = None) -> np.ndarray:
        """Predict the mean of the target (counts for a log link, else the linear predictor).

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        offset : array of shape (n_samples,) or (n_samples, n_outputs), optional
            Known part of the linear predictions.
        exposure : array of shape (n_samples,), optional
            As for :meth:`fit`: the mean grows with it.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_outputs)
            Predictions; for the Cox datafit the log hazard ratio.
        """
        linear, known = self._linear_prediction(X), self._known(offset, exposure, X)
        if known is not None:
            linear = linear + checked_offset(known, linear.shape)
        return self._datafit().mean(linear)

    def score(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        offset: Any = None,
        exposure: Any = None,
    ) -> float:
        """Return the share of the deviance that is explained; for Cox the concordance.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,) or (n_samples, n_outputs)
            Target, as for :meth:`fit`.
        sample_weight : array of shape (n_samples,), optional
            Relative weights.
        offset : array of shape (n_samples,) or (n_samples, n_outputs), optional
            Known part of the linear predictions.
        exposure : array of shape (n_samples,), optional
            As for :meth:`fit`.

        Returns
        -------
        float
            The datafit's :meth:`~thresher.solve.datafits.base.Datafit.score`: R squared for
            squares, the mean of the tasks' where there are several, what scikit-learn's
            generalised linear models return for others; for the Cox datafit the
            :func:`~thresher.solve.datafits.survival.concordance`, as survival packages do.
        """
        datafit, linear = self._datafit(), self._linear_prediction(X)
        target = np.asarray(datafit.target(y), dtype=float)
        if target.size != linear.size:
            raise DataError(f"predictions have shape {linear.shape} but y has {target.shape}")
        target = target.reshape(linear.shape)
        known = self._known(offset, exposure, X)
        if known is not None:
            target, datafit = with_offset(target, datafit, known)
        return explained_deviance(datafit, target, linear, sample_weight)


@dataclass(eq=False, repr=False)
class SparseGLM(GLMModel):
    """Any datafit with any penalty.

    Parameters
    ----------
    datafit : Datafit, optional
        The loss, from :mod:`thresher.solve.datafits`; least squares by default.
    penalty : Penalty or "l1", default "l1"
        The regulariser, from :mod:`thresher.solve.penalties`; the L1 norm by default.
    alpha : float, default 1
        Factor of the penalty.
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for the attributes.
    solver : Solver, optional
        From :mod:`thresher.solve.solvers`; its own ``tol`` and ``max_iter`` are then used. By
        default the fastest that takes the pair: local search for the L0 penalty, coordinate
        or group descent, proximal gradient steps. Losses with a kink need ``StochasticModels``.
    warm_start : bool, default False
        Whether a refit starts from the last coefficients.

    Raises
    ------
    OptionError
        If the given solver cannot take the pair.

    Notes
    -----
    The default solvers stop on the duality gap if the problem is convex. They stop on the
    violation of optimality for penalties that are not convex; for ``Cox``, ``Probit`` and
    ``SquaredHinge``; for ``Bounded``; for ``NonNegative``,
    and other signs that are constrained without a penalty beside them (``L1`` with a zero weight,
    ``TotalVariation`` and ``HaarL1``, each with ``positive=True``); with more than a hundred
    columns that are not penalised; and by proximal gradient steps for ``PoissonIdentity``.

    Parameters of the parts can be set and searched, as in
    ``GridSearchCV(SparseGLM(penalty=MCP()), {"penalty__gamma": [2, 3]})``.

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

    datafit: Loss = None
    penalty: Regulariser = "l1"
    alpha: Strength = 1.0
    _: KW_ONLY
    solver: Method = None
    warm_start: Switch = False


class LogisticModel(ClassifierMixin, PenalizedModel):
    """Sparse logistic regression, its strength left open."""

    l1_ratio: float
    penalty: Any
    share_features: bool
    class_weight: Any

    def _datafit(self) -> Datafit:
        return Logistic() if len(self.classes_) == 2 else Multinomial()

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        if isinstance(self.penalty, Penalty):
            return self.penalty.scaled(alpha)
        ratio = self._ratio
        mixed = L1L2(alpha * ratio, ridge=alpha * (1 - ratio))
        return Rows(mixed) if self.share_features and len(self.classes_) > 2 else mixed

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

    def _weighed(self, y: np.ndarray, sample_weight: Any) -> Any:
        """Return the weights of samples and classes together."""
        if self.class_weight is None:
            return sample_weight
        codes = np.arange(len(self.classes_))
        given = np.ones(len(y)) if sample_weight is None else sample_weight
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            totals = np.bincount(y, weights=given, minlength=len(codes))
            by_class = np.divide(1.0, totals, out=np.zeros_like(totals), where=totals > 0)
        else:
            by_class = compute_class_weight(
                self.class_weight, classes=self.classes_, y=self.classes_[y]
            )
        return given * by_class[y]

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        if len(self.classes_) == 2:
            return 2.0 * y - 1.0
        return np.eye(len(self.classes_))[y]

    def _keep(self, solution: Any) -> None:
        super()._keep(solution)
        self.coef_ = np.atleast_2d(self.coef_)
        self.intercept_ = np.atleast_1d(np.asarray(self.intercept_))

    def _start(self, problem: Problem) -> tuple:
        shape = problem.coef_shape  # of a vector where there are two classes
        if self.coef_.T.shape != (*shape, 1)[:2]:
            return None, None
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

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of every class's probability, of shape (n_samples, n_classes)."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([log_expit(-scores), log_expit(scores)])
        return log_softmax(scores, axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of every sample."""
        scores = self.decision_function(X)
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[codes]


@dataclass(eq=False, repr=False)
class SparseLogistic(LogisticModel):
    """Logistic regression with a sparse penalty, for two or more classes.

    Minimises the mean logistic loss (softmax cross-entropy) plus
    ``alpha (l1_ratio ||w||_1 + (1 - l1_ratio) ||w||^2 / 2)``. Two classes have one row of
    coefficients, more have one each. Stops on the duality gap, for more than two classes too.

    Parameters
    ----------
    alpha : float, default 0.01
        Strength. scikit-learn's ``C`` is ``1 / (n_samples * alpha)``.
    l1_ratio : float, default 1
        Share of the L1 norm.
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for the attributes.
    penalty : Penalty or "l1", default "l1"
        Another penalty, scaled by `alpha`; `l1_ratio` is then not used.
    share_features : bool, default False
        With more than two classes, whether a feature is used by all classes or by none.
    class_weight : dict of label to number or "balanced", optional
        Factor of the weights of each class's samples; "balanced" lets all classes weigh the same.
    warm_start : bool, default False
        Whether a refit starts from the last coefficients.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels.
    """

    alpha: Strength = 0.01
    l1_ratio: Share = 1.0
    _: KW_ONLY
    penalty: Regulariser = "l1"
    share_features: Switch = False
    class_weight: ClassWeight = None
    warm_start: Switch = False
