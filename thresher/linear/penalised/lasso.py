"""Least squares with L1-like penalties."""

from __future__ import annotations

__all__ = ["ElasticNet", "GroupLasso", "Lasso", "MultiTaskElasticNet", "MultiTaskLasso"]

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from ...core.errors import OptionError
from ...solve.datafits import Datafit, MultiTaskSquares
from ...solve.penalties import L1, L1L2, Bounded, Penalty, Rows, sparse_group_lasso
from ...solve.penalties.blocks import numbered
from .model import SparseRegressor
from .parameters import Bounds, Share, Strength, Switch


class ElasticNetModel(SparseRegressor):
    """The elastic net, its strength left open."""

    l1_ratio: float
    weights: Any
    positive: bool
    bounds: Any

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        _check_weights(self.weights, n_features)
        shared = (alpha * self._ratio, self.weights, bool(self.positive), alpha * (1 - self._ratio))
        return L1L2(*shared) if self.bounds is None else Bounded(*shared, *self.bounds)


class LassoModel(SparseRegressor):
    """The Lasso, its strength left open."""

    weights: Any
    positive: bool
    bounds: Any

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        _check_weights(self.weights, n_features)
        shared = (alpha, self.weights, bool(self.positive))
        return L1(*shared) if self.bounds is None else Bounded(*shared, 0.0, *self.bounds)


class GroupLassoModel(SparseRegressor):
    """The (sparse) group Lasso, its strength left open."""

    groups: Any
    l1_ratio: float
    group_weights: Any

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        if self.groups is None:
            labels, numbers = np.arange(n_features), np.arange(n_features)
        else:
            labels, numbers = numbered(self.groups)
        if numbers.shape != (n_features,):
            raise OptionError(f"groups has shape {numbers.shape}, X has {n_features} features")
        weights = _weights_of(labels, self.group_weights)
        return sparse_group_lasso(numbers, alpha, self._ratio, weights)


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
    bounds : tuple of (lower, upper), optional
        What coefficients are kept between: numbers, or arrays of shape (n_features,), the lower at
        most and the upper at least zero. The violation of optimality is then what ends a fit.
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

    alpha: Strength = 1.0
    l1_ratio: Share = 0.5
    _: KW_ONLY
    weights: Any = None
    positive: Switch = False
    bounds: Bounds = None
    warm_start: Switch = False


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
    weights, positive, bounds, warm_start
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

    alpha: Strength = 1.0
    _: KW_ONLY
    weights: Any = None
    positive: Switch = False
    bounds: Bounds = None
    warm_start: Switch = False


@dataclass(eq=False, repr=False)
class GroupLasso(GroupLassoModel):
    """Least squares with groups of coefficients kept or dropped together.

    Minimises ``||y - X w - b||^2 / (2 n) + alpha (l1_ratio ||w||_1
    + (1 - l1_ratio) sum_g sqrt(size_g) ||w_g||_2)``.

    Parameters
    ----------
    groups : array of shape (n_features,), optional
        Which group each feature belongs to: numbers or texts, any that are told apart by ``==``.
        Each feature is its own by default.
    alpha : float, default 1
        Strength.
    l1_ratio : float, default 0
        Share of the L1 norm; above zero this is the sparse group Lasso.
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for the attributes.
    group_weights : dict of label to number, or array of shape (n_groups,), optional
        Factor of each group's norm, the square root of its size by default; zero leaves a group
        free. An array is in the order of ``np.unique(groups)``.
    warm_start : bool, default False
        Whether a refit starts from the last coefficients.

    References
    ----------
    Yuan and Lin, Model selection and estimation in regression with grouped variables (2006);
    Simon, Friedman, Hastie and Tibshirani, A sparse-group lasso (2013).
    """

    groups: Any = None
    alpha: Strength = 1.0
    l1_ratio: Share = 0.0
    _: KW_ONLY
    group_weights: Any = None
    warm_start: Switch = False


class MultiTaskModel(SparseRegressor):
    """Several targets that share their features, the strength left open."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags

    def _datafit(self) -> Datafit:
        return MultiTaskSquares()

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        ratio = self._ratio if hasattr(self, "l1_ratio") else 1.0
        return Rows(L1L2(alpha * ratio, ridge=alpha * (1 - ratio)))

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        if y.ndim == 1:
            kind = type(self).__name__
            raise OptionError(
                f"{kind} needs a matrix of targets; use {kind.removeprefix('MultiTask')} for a "
                "single one"
            )
        return y


@dataclass(eq=False, repr=False)
class MultiTaskLasso(MultiTaskModel):
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

    alpha: Strength = 1.0
    _: KW_ONLY
    warm_start: Switch = False


@dataclass(eq=False, repr=False)
class MultiTaskElasticNet(MultiTaskModel):
    """Least squares for several targets that share their features, with a ridge beside.

    Minimises ``||Y - X W - b||^2 / (2 n) + alpha l1_ratio sum_j ||W_j||_2
    + alpha (1 - l1_ratio) ||W||^2 / 2``, as scikit-learn does.

    Parameters
    ----------
    alpha : float, default 1
        Strength.
    l1_ratio : float, default 0.5
        Share of the norms of rows, from 0 (ridge) to 1 (:class:`MultiTaskLasso`).
    fit_intercept, tol, max_iter
        See :class:`~thresher.linear.penalised.model.PenalizedModel`, also for the attributes.
    warm_start : bool, default False
        Whether a refit starts from the last coefficients.

    References
    ----------
    Obozinski, Taskar and Jordan (2010), as for :class:`MultiTaskLasso`; Zou and Hastie (2005), as
    for :class:`ElasticNet`.
    """

    alpha: Strength = 1.0
    l1_ratio: Share = 0.5
    _: KW_ONLY
    warm_start: Switch = False


def _check_weights(weights: Any, n_features: int) -> None:
    if weights is not None and np.shape(weights) != (n_features,):
        raise OptionError(f"weights has shape {np.shape(weights)}, X has {n_features} features")


def _weights_of(labels: np.ndarray, given: Any) -> Any:
    """Return the weight of every group, in the order of its labels; None for the default ones."""
    if given is None:
        return None
    if isinstance(given, dict):
        known = list(labels.tolist())
        if set(given) != set(known):
            odd = sorted(map(repr, set(given) ^ set(known)))[0]
            raise OptionError(
                f"group_weights must name every group of groups, and only these; {odd} is amiss"
            )
        return np.array([given[label] for label in known], dtype=float)
    weights = np.asarray(given, dtype=float)
    if weights.shape != labels.shape:
        raise OptionError(
            f"group_weights has shape {weights.shape}, groups has {len(labels)} groups"
        )
    return weights
