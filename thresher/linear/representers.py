"""Which training samples a sparse model's prediction rests on."""

from __future__ import annotations

__all__ = ["Representers"]

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from ..core.card import Card, Catalogued
from ..core.errors import OptionError
from .model import PenalizedModel
from .penalties import L1, L1L2


class Representers(Catalogued, BaseEstimator):
    """Splits every prediction of an L1-regularised model into shares of the training samples.

    At the optimum the gradient of the loss balances the penalty: on the support
    ``alpha sign(w_j) = -sum_i slope_i x_ij``. Multiplied by ``|w_j|`` this writes the
    coefficients, and so a prediction at ``x``, as a sum over the samples::

        w @ x = sum_i importance_i * sum_j |w_j| x_ij x_j,  importance_i = -slope_i / alpha

    The importance is global: how hard the sample pulls at the model. The kernel is local:
    how alike the sample and ``x`` are on the selected features.

    Parameters
    ----------
    model : Lasso or SparseLogistic
        A model with an L1 penalty and one output; a copy of it is fitted.

    Attributes
    ----------
    model_ : PenalizedModel
        The fitted copy.
    importance_ : array of shape (n_samples,)
        Global importance of every training sample, with the sign of its pull.
    residual_ : float
        Largest error of the decomposition in a coefficient, relative to the largest
        coefficient; small when the model was solved to a small tolerance.

    Raises
    ------
    OptionError
        If the model has another penalty, or several outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import Lasso, Representers
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((30, 60))
    >>> y = 2 * X[:, 0]
    >>> explained = Representers(Lasso(alpha=0.1, tol=1e-12)).fit(X, y)
    >>> shares = explained.explain(X[:2])
    >>> shares.shape
    (2, 30)
    >>> total = shares.sum(axis=1) + explained.model_.intercept_
    >>> bool(np.allclose(total, explained.model_.predict(X[:2]), atol=1e-4))
    True
    """

    card = Card(
        name="representers",
        title="Representer Point Selection for Explaining Regularized High-dimensional Models",
        authors="Che-Ping Tsai et al.",
        year=2023,
        arxiv="2305.20002",
        summary="splits a sparse model's prediction into shares of the training samples",
    )

    def __init__(self, model: PenalizedModel) -> None:
        self.model = model

    def fit(self, X: Any, y: Any) -> Representers:
        """Fit the model and weigh the training samples.

        Parameters
        ----------
        X : array or data frame of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,)
            Target, as the model takes it.

        Returns
        -------
        self
            Fitted.
        """
        self.model_ = clone(self.model).fit(X, y)
        problem = self.model_._problem(X, y, None, self.model_.alpha)
        weights = _l1_weights(problem.penalty, problem.design.shape[1])
        if problem.y.ndim != 1:
            raise OptionError(
                "the model has several outputs; representers take one, such as two classes"
            )
        coef = self.model_.coef_.ravel()
        prediction = problem.predict(coef, np.asarray(self.model_.intercept_).reshape(()))
        slope = problem.datafit.gradient(problem.y, prediction, problem.weight)
        self.importance_ = -slope
        # Columns times |w|, so that the kernel with x is one product.
        self._support = np.flatnonzero(coef)
        scale = np.abs(coef[self._support]) / weights[self._support]
        columns = problem.design.columns(self._support).matrix
        columns = columns.toarray() if problem.design.is_sparse else columns
        self._scaled = np.asarray(columns, dtype=float) * scale
        rebuilt = self.importance_ @ self._scaled
        largest = np.max(np.abs(coef), initial=0.0)
        gap = np.max(np.abs(rebuilt - coef[self._support]), initial=0.0)
        self.residual_ = float(gap / largest) if largest > 0 else 0.0
        validate_data(self, X, skip_check_array=True)
        return self

    def explain(self, X: Any) -> np.ndarray:
        """Return the share of every training sample in every prediction.

        Parameters
        ----------
        X : array or data frame of shape (n, n_features)
            Where the model predicts.

        Returns
        -------
        array of shape (n, n_samples)
            A row sums to the linear predictor less the intercept, up to ``residual_``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return (X[:, self._support] @ self._scaled.T) * self.importance_


def _l1_weights(penalty: Any, size: int) -> np.ndarray:
    """Return the strength of the L1 norm for every coefficient, or refuse the penalty."""
    ridge = getattr(penalty, "ridge", 0.0)
    if not isinstance(penalty, L1 | L1L2) or ridge or penalty.alpha == 0:
        raise OptionError(
            "representers need a model with a positive L1 penalty alone, such as Lasso or "
            f"SparseLogistic; got {penalty}"
        )
    weights = np.ones(size) if penalty.weights is None else np.asarray(penalty.weights, float)
    if np.any(weights == 0):
        raise OptionError("some coefficients are not penalised; give all of them a weight")
    return penalty.alpha * weights
