"""How hard supports are for a design, and the Lasso with its leading directions projected out."""

from __future__ import annotations

__all__ = ["ProjectedLasso", "random_support_conditions", "support_condition", "worst_support"]

from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from ...core.card import Card, Catalogued
from ...core.errors import OptionError
from ...core.options import check_whole
from ...solve.centring import Centring
from ..predictor import LinearRegressor
from .cross_validation import LassoCV


def support_condition(X: np.ndarray, support: np.ndarray) -> float:
    """Return the smallest singular value of some columns, scaled to unit norm.

    Near one the columns are orthogonal, at zero dependent: then large coefficients on them
    can cancel in the prediction, which no penalty on coefficients expects.

    Parameters
    ----------
    X : array of shape (n, d)
        The design. Columns of zeros count as they are.
    support : array of int
        Which columns.

    Returns
    -------
    float
        From 0 to 1.
    """
    return float(np.linalg.svd(_unit(X[:, support]), compute_uv=False)[-1])


def random_support_conditions(
    X: np.ndarray, k: int, draws: int = 200, random_state: Any = None
) -> np.ndarray:
    """Return the condition of uniformly random supports.

    Parameters
    ----------
    X : array of shape (n, d)
        The design.
    k : int
        Columns of a support.
    draws : int, default 200
        How many supports.
    random_state : int, RandomState or None, default None
        Which.

    Returns
    -------
    array of shape (draws,)
        See :func:`support_condition`. Where most are far above that of
        :func:`worst_support`, theory of worst cases is too pessimistic for this design.

    Raises
    ------
    OptionError
        If `k` is out of range.
    """
    _check_size(X, k)
    rng = check_random_state(random_state)
    supports = (rng.choice(X.shape[1], k, replace=False) for _ in range(draws))
    return np.array([support_condition(X, support) for support in supports])


def worst_support(X: np.ndarray, k: int) -> np.ndarray:
    """Return columns that nearly depend on each other, chosen greedily.

    Parameters
    ----------
    X : array of shape (n, d)
        The design.
    k : int
        How many columns, 2 or more.

    Returns
    -------
    array of int of shape (k,)
        The most correlated pair, then one by one the column nearest to the span of those
        before it.

    Raises
    ------
    OptionError
        If `k` is out of range.
    """
    _check_size(X, k)
    unit = _unit(X)
    cosine = np.abs(unit.T @ unit)
    np.fill_diagonal(cosine, 0)
    chosen = [int(i) for i in np.unravel_index(np.argmax(cosine), cosine.shape)]
    while len(chosen) < k:
        basis = np.linalg.qr(unit[:, chosen])[0]
        inside = np.sum((basis.T @ unit) ** 2, axis=0)
        inside[chosen] = -1
        chosen.append(int(np.argmax(inside)))
    return np.array(chosen)


def _check_size(X: np.ndarray, k: int) -> None:
    if not 2 <= k <= X.shape[1]:
        raise OptionError(f"a support of {k} of {X.shape[1]} columns; need 2 or more, and as many")


def _unit(columns: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(columns, axis=0)
    return columns / np.where(norm > 0, norm, 1.0)


class ProjectedLasso(Catalogued, LinearRegressor):
    """Lasso on what the leading directions of the design leave, and least squares on those.

    Columns that share a few strong directions allow large coefficients to cancel. This
    projects the directions out, fits them without a penalty, and the Lasso on the rest, whose
    columns cancel less. The strength is chosen by cross-validation.

    Do not expect a gain over the plain
    :class:`~thresher.linear.penalised.cross_validation.LassoCV`: on random supports that predicted
    a little better in every design of the evidence, where each direction costs an estimate, needed
    or not.

    Parameters
    ----------
    rank : int, default 5
        Directions, the leading right singular vectors of the centred design; at most the
        smaller of samples and features. Zero is the plain Lasso.
    cv : int, splitter or iterable, optional
        As everywhere in scikit-learn; five folds by default.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Coefficients of the features as given; not sparse unless `rank` is zero.
    sparse_coef_ : array of shape (n_features,)
        Coefficients of the projected columns, scaled to unit variance.
    intercept_ : float
        Constant.
    alpha_ : float
        Strength, for projected columns of unit variance.
    n_iter_ : int
        Rounds of working sets of the fit at that strength.

    Raises
    ------
    OptionError
        If `rank` is not a whole number of at least zero.

    Notes
    -----
    The paper proves that a preconditioner followed by a penalised regression needs few
    samples for any design once the support is random. This is the simplest member of that
    family, not the paper's construction, which is made for the proof.

    References
    ----------
    Chandrasekaran, Meka and Stavropoulos, Sparse linear regression is easy on random supports
    (2025), arXiv:2511.06211, for the theorem; its construction is not built.
    """

    card = Card(
        name="random-supports",
        title="Sparse Linear Regression is Easy on Random Supports",
        authors="Gautam Chandrasekaran, Raghu Meka, Konstantinos Stavropoulos",
        year=2025,
        arxiv="2511.06211",
        summary="how hard supports are for a design; the Lasso after projecting directions, "
        "which on random supports is behind the plain Lasso",
    )

    def __init__(self, rank: int = 5, *, cv: Any = None) -> None:
        self.rank = rank
        self.cv = cv

    def fit(self, X: Any, y: Any) -> ProjectedLasso:
        """Project and fit.

        Parameters
        ----------
        X : array or data frame of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,)
            Target.

        Returns
        -------
        self
            Fitted.
        """
        check_whole("rank", self.rank, least=0)
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        centring = Centring.of(X, y)
        centred, target = centring.columns(X), y - centring.offset
        scores, values, directions = np.linalg.svd(centred, full_matrices=False)
        # A direction without variance has nothing to say, and would be divided by zero.
        rank = min(self.rank, int(np.sum(values > 1e-10 * max(values[0], 1e-300))))
        scores, values, directions = scores[:, :rank], values[:rank], directions[:rank]
        rest = centred - (scores * values) @ directions
        rest[:, rest.std(axis=0) <= 1e-10 * X.std(axis=0)] = 0.0  # nothing is left but rounding
        deviation = rest.std(axis=0)
        unit = np.where(deviation > 0, deviation, 1.0)
        # The rest is orthogonal to the scores: the two fits do not know of each other.
        lasso = LassoCV(cv=self.cv, tol=1e-4).fit(rest / unit, target)
        self.alpha_, self.sparse_coef_, self.n_iter_ = lasso.alpha_, lasso.coef_, lasso.n_iter_
        inside = lasso.coef_ / unit
        inside -= directions.T @ (directions @ inside)
        self.coef_ = inside + directions.T @ (scores.T @ target / values)
        self.intercept_ = float(centring.intercept(self.coef_))
        return self
