"""Least squares with L1-like penalties."""

from __future__ import annotations

__all__ = ["ElasticNet", "GroupLasso", "Lasso", "MultiTaskLasso"]

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from ...core.errors import OptionError
from ...solve.datafits import Datafit, MultiTaskSquares
from ...solve.penalties import (
    L1,
    L1L2,
    Penalty,
    Rows,
    sparse_group_lasso,
)
from ...solve.penalties.blocks import group_labels
from .model import SparseRegressor


class ElasticNetModel(SparseRegressor):
    """The elastic net, its strength left open."""

    l1_ratio: float
    weights: Any
    positive: bool

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        _check_weights(self.weights, n_features)
        ridge = alpha * (1 - self.l1_ratio)
        return L1L2(alpha * self.l1_ratio, self.weights, bool(self.positive), ridge)


class LassoModel(SparseRegressor):
    """The Lasso, its strength left open."""

    weights: Any
    positive: bool

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        _check_weights(self.weights, n_features)
        return L1(alpha, self.weights, bool(self.positive))


class GroupLassoModel(SparseRegressor):
    """The (sparse) group Lasso, its strength left open."""

    groups: Any
    l1_ratio: float

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        groups = np.arange(n_features) if self.groups is None else group_labels(self.groups)
        if groups.shape != (n_features,):
            raise OptionError(f"groups has shape {groups.shape}, X has {n_features} features")
        if groups.dtype.kind not in "iu":
            raise OptionError(
                f"groups must be whole numbers, got {groups.dtype}; "
                "np.unique(groups, return_inverse=True)[1] numbers them"
            )
        return sparse_group_lasso(groups, alpha, self.l1_ratio)


@dataclass(eq=False, repr=False)
class ElasticNet(ElasticNetModel):
    """Least squares with a mixture of the L1 norm and the squared norm.

    Minimises ``||y - X w - b||^2 / (2 n) + alpha l1_ratio ||w||_1
    + alpha (1 - l1_ratio) ||w||^2 / 2``, as scikit-learn does.

    Parameters
    ----------
    alpha : float, default 1
        Strength.
    l1_ratio : float, default 0.5
        Share of the L1 norm, from 0 (ridge) to 1 (Lasso).
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for the attributes.
    weights : array of shape (n_features,), optional
        Factor of the L1 norm of each coefficient (adaptive Lasso); zero leaves it free.
    positive : bool, default False
        Whether coefficients are kept from falling below zero.
    warm_start : bool, default False
        Whether a refit starts from the last coefficients.

    References
    ----------
    Zou and Hastie, Regularization and variable selection via the elastic net (2005).

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import ElasticNet
    >>> X = np.eye(4)
    >>> ElasticNet(alpha=0.1, fit_intercept=False).fit(X, [1.0, 0.0, 0.0, 2.0]).coef_.round(3)
    array([0.667, 0.   , 0.   , 1.5  ])
    """

    alpha: float = 1.0
    l1_ratio: float = 0.5
    _: KW_ONLY
    weights: Any = None
    positive: bool = False
    warm_start: bool = False


@dataclass(eq=False, repr=False)
class Lasso(LassoModel):
    """Least squares with the L1 norm.

    Minimises ``||y - X w - b||^2 / (2 n) + alpha ||w||_1``, as scikit-learn does.

    Parameters
    ----------
    alpha : float, default 1
        Strength.
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for the attributes.
    weights, positive, warm_start
        See :class:`ElasticNet`.

    References
    ----------
    Tibshirani, Regression shrinkage and selection via the lasso (1996).

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import Lasso
    >>> Lasso(alpha=0.1, fit_intercept=False).fit(np.eye(4), [1.0, 0.0, 0.0, 2.0]).coef_.round(3)
    array([0.6, 0. , 0. , 1.6])
    """

    alpha: float = 1.0
    _: KW_ONLY
    weights: Any = None
    positive: bool = False
    warm_start: bool = False


@dataclass(eq=False, repr=False)
class GroupLasso(GroupLassoModel):
    """Least squares with groups of coefficients kept or dropped together.

    Minimises ``||y - X w - b||^2 / (2 n) + alpha (l1_ratio ||w||_1
    + (1 - l1_ratio) sum_g sqrt(size_g) ||w_g||_2)``.

    Parameters
    ----------
    groups : array of int of shape (n_features,), optional
        Which group each feature belongs to, from 0; each its own by default.
    alpha : float, default 1
        Strength.
    l1_ratio : float, default 0
        Share of the L1 norm; above zero this is the sparse group Lasso.
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for the attributes.
    warm_start : bool, default False
        Whether a refit starts from the last coefficients.

    References
    ----------
    Yuan and Lin, Model selection and estimation in regression with grouped variables (2006);
    Simon, Friedman, Hastie and Tibshirani, A sparse-group lasso (2013).
    """

    groups: Any = None
    alpha: float = 1.0
    l1_ratio: float = 0.0
    _: KW_ONLY
    warm_start: bool = False


@dataclass(eq=False, repr=False)
class MultiTaskLasso(SparseRegressor):
    """Least squares for several targets that share their features: each has all or none.

    Minimises ``||Y - X W - b||^2 / (2 n) + alpha sum_j ||W_j||_2``, as scikit-learn does.

    Parameters
    ----------
    alpha : float, default 1
        Strength.
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for the attributes.
    warm_start : bool, default False
        Whether a refit starts from the last coefficients.

    References
    ----------
    Obozinski, Taskar and Jordan, Joint covariate selection and joint subspace selection for
    multiple classification problems (2010).
    """

    alpha: float = 1.0
    _: KW_ONLY
    warm_start: bool = False

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags

    def _datafit(self) -> Datafit:
        return MultiTaskSquares()

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        return Rows(L1(alpha))

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        if y.ndim == 1:
            raise OptionError(
                "MultiTaskLasso needs a matrix of targets; use Lasso for a single one"
            )
        return y


def _check_weights(weights: Any, n_features: int) -> None:
    if weights is not None and np.shape(weights) != (n_features,):
        raise OptionError(f"weights has shape {np.shape(weights)}, X has {n_features} features")
