"""The penalised estimators with their strength chosen by cross-validation."""

from __future__ import annotations

__all__ = [
    "ElasticNetCV",
    "GroupLassoCV",
    "LassoCV",
    "MultiTaskElasticNetCV",
    "MultiTaskLassoCV",
    "SparseGLMCV",
    "SparseLogisticCV",
]

from dataclasses import KW_ONLY, dataclass
from typing import Any

from .cross_validated import CrossValidated
from .glm import GLMModel, LogisticModel
from .lasso import ElasticNetModel, GroupLassoModel, LassoModel, MultiTaskModel
from .parameters import Bounds, ClassWeight, Loss, Method, Ratio, Regulariser, Shares, Switch


@dataclass(eq=False, repr=False)
class LassoCV(CrossValidated, LassoModel):
    """Lasso with its strength chosen by cross-validation.

    Parameters
    ----------
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, selection, cv, n_jobs
        See :class:`~thresher.linear.penalised.cross_validated.CrossValidated`, also for attributes.
    weights, positive, bounds
        See :class:`~thresher.linear.penalised.lasso.Lasso`.
    """

    _: KW_ONLY
    weights: Any = None
    positive: Switch = False
    bounds: Bounds = None


@dataclass(eq=False, repr=False)
class ElasticNetCV(CrossValidated, ElasticNetModel):
    """Elastic net with its strength chosen by cross-validation.

    Parameters
    ----------
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, selection, cv, n_jobs
        See :class:`~thresher.linear.penalised.cross_validated.CrossValidated`, also for attributes.
    l1_ratio : float or list of float, default 0.5
        Share of the L1 norm; of a list, cross-validation chooses one, with its strength.
    weights, positive, bounds
        See :class:`~thresher.linear.penalised.lasso.ElasticNet`.
    """

    _: KW_ONLY
    l1_ratio: Shares = 0.5
    weights: Any = None
    positive: Switch = False
    bounds: Bounds = None


@dataclass(eq=False, repr=False)
class GroupLassoCV(CrossValidated, GroupLassoModel):
    """Group Lasso with its strength chosen by cross-validation.

    Parameters
    ----------
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, selection, cv, n_jobs
        See :class:`~thresher.linear.penalised.cross_validated.CrossValidated`, also for attributes.
    groups
        Of features: see :class:`~thresher.linear.penalised.lasso.GroupLasso`.
    l1_ratio : float or list of float, default 0
        Share of the L1 norm; of a list, cross-validation chooses one, with its strength.
    group_weights
        See :class:`~thresher.linear.penalised.lasso.GroupLasso`.
    """

    _: KW_ONLY
    groups: Any = None
    l1_ratio: Shares = 0.0
    group_weights: Any = None


@dataclass(eq=False, repr=False)
class MultiTaskLassoCV(CrossValidated, MultiTaskModel):
    """Several targets that share their features, the strength chosen by cross-validation.

    Parameters
    ----------
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, selection, cv, n_jobs
        See :class:`~thresher.linear.penalised.cross_validated.CrossValidated`, also for attributes.
    """


@dataclass(eq=False, repr=False)
class MultiTaskElasticNetCV(CrossValidated, MultiTaskModel):
    """Several targets that share their features, with a ridge beside, by cross-validation.

    Parameters
    ----------
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, selection, cv, n_jobs
        See :class:`~thresher.linear.penalised.cross_validated.CrossValidated`, also for attributes.
    l1_ratio : float or list of float, default 0.5
        Share of the norms of rows; of a list, cross-validation chooses one, with its strength.
    """

    _: KW_ONLY
    l1_ratio: Shares = 0.5


@dataclass(eq=False, repr=False)
class SparseGLMCV(CrossValidated, GLMModel):
    """Any datafit with any penalty, its strength chosen by cross-validation.

    Parameters
    ----------
    datafit, penalty
        See :class:`~thresher.linear.penalised.glm.SparseGLM`.
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, selection, cv, n_jobs
        See :class:`~thresher.linear.penalised.cross_validated.CrossValidated`, also for attributes.
    solver
        See :class:`~thresher.linear.penalised.glm.SparseGLM`.

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import SparseGLMCV, penalties
    >>> X = np.random.default_rng(0).standard_normal((100, 20))
    >>> model = SparseGLMCV(penalty=penalties.MCP()).fit(X, 3 * X[:, 0] - X[:, 5])
    >>> np.flatnonzero(model.coef_)
    array([0, 5])
    """

    datafit: Loss = None
    penalty: Regulariser = "l1"
    _: KW_ONLY
    solver: Method = None

    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        groups: Any = None,
        offset: Any = None,
        exposure: Any = None,
    ) -> Any:
        """Choose the strength and fit at it.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,) or (n_samples, n_outputs)
            Target, in a form that the datafit takes.
        sample_weight : array of shape (n_samples,), optional
            Relative weights, not negative; they count in the held-out loss too.
        groups : array of shape (n_samples,), optional
            Groups of samples for `cv`, such as ``GroupKFold``.
        offset : array of shape (n_samples,) or (n_samples, n_outputs), optional
            Known part of the linear predictions.
        exposure : array of shape (n_samples,), optional
            As for :class:`~thresher.linear.penalised.glm.SparseGLM`.

        Returns
        -------
        self
            As of :meth:`~thresher.linear.penalised.cross_validated.CrossValidated.fit`, which
            also tells what is raised and warned of.
        """
        known = self._known(offset, exposure, X)
        return self._chosen(X, y, sample_weight, groups, known)


@dataclass(eq=False, repr=False)
class SparseLogisticCV(CrossValidated, LogisticModel):
    """Sparse logistic regression with its strength chosen by cross-validation.

    Parameters
    ----------
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, selection, cv, n_jobs
        See :class:`~thresher.linear.penalised.cross_validated.CrossValidated`, also for attributes.
    l1_ratio : float or list of float, default 1
        Share of the L1 norm; of a list, cross-validation chooses one, with its strength.
    penalty, share_features, class_weight
        See :class:`~thresher.linear.penalised.glm.SparseLogistic`. Class weights count in the
        held-out loss too.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels.
    """

    _: KW_ONLY
    eps: Ratio = 1e-2
    l1_ratio: Shares = 1.0
    penalty: Regulariser = "l1"
    share_features: Switch = False
    class_weight: ClassWeight = None
