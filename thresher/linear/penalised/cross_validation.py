"""The penalised estimators with their strength chosen by cross-validation."""

from __future__ import annotations

__all__ = ["ElasticNetCV", "GroupLassoCV", "LassoCV", "SparseGLMCV", "SparseLogisticCV"]

from dataclasses import KW_ONLY, dataclass
from typing import Any

from ...solve.datafits import Datafit
from ...solve.penalties import Penalty
from ...solve.solvers import Solver
from .cross_validated import CrossValidated
from .glm import GLMModel, LogisticModel
from .lasso import ElasticNetModel, GroupLassoModel, LassoModel


@dataclass(eq=False, repr=False)
class LassoCV(CrossValidated, LassoModel):
    """Lasso with its strength chosen by cross-validation.

    Parameters
    ----------
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, cv, n_jobs
        See :class:`~thresher.linear.penalised.cross_validated.CrossValidated`, also for attributes.
    weights, positive
        See :class:`~thresher.linear.penalised.lasso.Lasso`.
    """

    _: KW_ONLY
    weights: Any = None
    positive: bool = False


@dataclass(eq=False, repr=False)
class ElasticNetCV(CrossValidated, ElasticNetModel):
    """Elastic net with its strength chosen by cross-validation.

    Parameters
    ----------
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, cv, n_jobs
        See :class:`~thresher.linear.penalised.cross_validated.CrossValidated`, also for attributes.
    l1_ratio, weights, positive
        See :class:`~thresher.linear.penalised.lasso.ElasticNet`.
    """

    _: KW_ONLY
    l1_ratio: float = 0.5
    weights: Any = None
    positive: bool = False


@dataclass(eq=False, repr=False)
class GroupLassoCV(CrossValidated, GroupLassoModel):
    """Group Lasso with its strength chosen by cross-validation.

    Parameters
    ----------
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, cv, n_jobs
        See :class:`~thresher.linear.penalised.cross_validated.CrossValidated`, also for attributes.
    groups, l1_ratio
        Groups of features: see :class:`~thresher.linear.penalised.lasso.GroupLasso`.
    """

    _: KW_ONLY
    groups: Any = None
    l1_ratio: float = 0.0


@dataclass(eq=False, repr=False)
class SparseGLMCV(CrossValidated, GLMModel):
    """Any datafit with any penalty, its strength chosen by cross-validation.

    Parameters
    ----------
    datafit, penalty
        See :class:`~thresher.linear.penalised.glm.SparseGLM`.
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, cv, n_jobs
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

    datafit: Datafit | None = None
    penalty: Penalty | None = None
    _: KW_ONLY
    solver: Solver | None = None


@dataclass(eq=False, repr=False)
class SparseLogisticCV(CrossValidated, LogisticModel):
    """Sparse logistic regression with its strength chosen by cross-validation.

    Parameters
    ----------
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for attributes.
    n_alphas, eps, alphas, cv, n_jobs
        See :class:`~thresher.linear.penalised.cross_validated.CrossValidated`, also for attributes.
    l1_ratio, penalty, share_features
        See :class:`~thresher.linear.penalised.glm.SparseLogistic`.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels.
    """

    _: KW_ONLY
    l1_ratio: float = 1.0
    penalty: Penalty | None = None
    share_features: bool = False
