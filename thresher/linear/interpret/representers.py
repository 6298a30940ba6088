"""Which training samples made a sparse model predict what it predicts."""

from __future__ import annotations

__all__ = ["Representers"]

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.utils.validation import check_array, check_is_fitted

from ...core.card import Card, Catalogued
from ...core.errors import DataError, OptionError
from ...solve.penalties import L1, L1L2
from ...solve.solvers import Problem
from ..penalised.model import PenalizedModel


class Representers(Catalogued):
    """Sample-based explanations of a fitted L1 model.

    Where a coefficient is not zero, optimality says that its sign times the strength is
    minus the gradient of the loss, a sum over training samples. Hence every prediction is
    a sum of one term per training sample: how much the sample pulls (its loss derivative
    over the strength) times a local similarity on the selected features,
    ``sum_j |w_j| x_ij x'_j``.

    Parameters
    ----------
    model : fitted Lasso, LassoCV, two-class SparseLogistic or SparseGLM
        With the L1 penalty, fitted on exactly the data given here.
    X : array, data frame or sparse matrix of shape (n_samples, n_features)
        The training features.
    y : array of shape (n_samples,)
        The training target.
    sample_weight : array of shape (n_samples,), optional
        The weights that the model was fitted with.

    Attributes
    ----------
    pull_ : array of shape (n_samples,)
        Global importance of every training sample.

    Raises
    ------
    OptionError
        If the model's penalty is not the L1 norm alone.
    DataError
        If the model is not optimal for the data, so that the decomposition does not hold.

    Notes
    -----
    The intercept is not explained: terms sum to the prediction less the intercept. With
    an intercept the pulls sum to zero, so that means of features do not matter. The paper's
    representers of low-rank models (nuclear norm, collaborative filtering) are not part of
    this class.

    References
    ----------
    Tsai, Zhang, Chien, Yu, Hsieh and Ravikumar, Representer point selection for explaining
    regularized high-dimensional models (ICML 2023), arXiv:2305.20002, for the decomposition of
    L1 models.

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import Lasso, Representers
    >>> X = np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 0.0], [4.0, 1.0]])
    >>> y = np.array([1.0, 2.0, 3.0, 4.0])
    >>> model = Lasso(0.1, tol=1e-12).fit(X, y)
    >>> shares = Representers(model, X, y).explain([5.0, 0.0])
    >>> bool(np.isclose(shares.sum(), model.coef_ @ [5.0, 0.0]))
    True
    """

    card = Card(
        name="representers",
        title="Representer Point Selection for Explaining Regularized High-dimensional Models",
        authors=(
            "Che-Ping Tsai, Jiong Zhang, Eli Chien, Hsiang-Fu Yu, Cho-Jui Hsieh, Pradeep Ravikumar"
        ),
        year=2023,
        arxiv="2305.20002",
        summary="decompose a sparse model's prediction exactly over its training samples",
    )

    def __init__(self, model: PenalizedModel, X: Any, y: Any, sample_weight: Any = None) -> None:
        if not isinstance(model, PenalizedModel):
            raise OptionError(
                f"representers explain models fitted with the L1 penalty, got "
                f"{type(model).__name__}; fit a Lasso or SparseLogistic of thresher.linear"
            )
        check_is_fitted(model)
        problem = _refounded(model, X, y, sample_weight)
        penalty = problem.penalty
        if not isinstance(penalty, L1 | L1L2) or problem.y.ndim == 2:
            raise OptionError("representers need the L1 penalty and a single output")
        if isinstance(penalty, L1L2) and penalty.ridge != 0:
            raise OptionError("representers need the L1 penalty alone, without a ridge")
        if penalty.positive:
            raise OptionError("representers of sign-constrained models are not defined")
        coef = np.ravel(model.coef_).astype(float)
        strength = np.broadcast_to(np.asarray(penalty.strength, dtype=float), coef.shape)
        self._features = len(coef)
        self._used = np.flatnonzero(coef)
        if np.any(strength[self._used] == 0):
            raise OptionError("representers need every selected feature to be penalised")
        prediction = problem.predict(coef, np.asarray(float(np.ravel(model.intercept_)[0])))
        slope = problem.datafit.gradient(problem.y, prediction, problem.weight)
        # Weighted by its strength, the sign of a coefficient is minus the loss gradient.
        missed = problem.design.correlate(slope) + strength * np.sign(coef)
        if np.any(np.abs(missed[self._used]) > 0.05 * strength[self._used]):
            raise DataError(
                "the model is not optimal for this data; pass exactly what it was fitted on, its "
                "sample_weight included, or fit it with a smaller tol"
            )
        self.pull_ = -slope
        self._kernel = np.abs(coef[self._used]) / strength[self._used]
        self._selected = _dense(_matrix(X), self._used)

    def explain(self, X: Any) -> np.ndarray:
        """Return the share of every training sample in predictions.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_queries, n_features), or (n_features,)
            What is predicted; one sample may be given as a vector.

        Returns
        -------
        array of shape (n_queries, n_samples), or (n_samples,)
            Rows sum to the linear prediction less the intercept, as accurately as the
            model is optimal. A vector for one sample given as a vector.

        Raises
        ------
        DataError
            If the samples do not have the model's number of features.
        """
        single = not sparse.issparse(X) and np.ndim(X) == 1
        queries = _matrix(np.reshape(X, (1, -1)) if single else X)
        if queries.shape[1] != self._features:
            raise DataError(
                f"the model has {self._features} features, what to explain has {queries.shape[1]}"
            )
        shares = (_dense(queries, self._used) * self._kernel) @ self._selected.T * self.pull_
        return shares[0] if single else shares


def _refounded(model: PenalizedModel, X: Any, y: Any, sample_weight: Any) -> Problem:
    """Return the problem that the model solved, without touching the model."""
    alpha = model.alpha_ if hasattr(model, "alpha_") else model.alpha  # type: ignore[attr-defined]
    twin = clone(model)
    if hasattr(model, "l1_ratio_"):  # of several that were tried
        twin.set_params(l1_ratio=model.l1_ratio_)
    return twin._problem(X, y, sample_weight, alpha)


def _matrix(X: Any) -> Any:
    return check_array(X, accept_sparse="csc", dtype=np.float64)


def _dense(X: Any, columns: np.ndarray) -> np.ndarray:
    selected = X[:, columns]
    return np.asarray(selected.toarray() if sparse.issparse(selected) else selected)
