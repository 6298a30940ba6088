"""Regression on features with missing values, which zeros replace."""

from __future__ import annotations

__all__ = ["ZeroImputedRegression", "imputation_bias"]

from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from ...core.card import Card, Catalogued
from ...core.options import check_number
from ...solve.centring import Centring
from ..predictor import LinearRegressor


class ZeroImputedRegression(Catalogued, LinearRegressor):
    """Averaged stochastic gradient descent, in one pass, on rows whose gaps are zeros.

    Entries missing completely at random act like a ridge penalty whose strength nobody has
    to choose: the population optimum on zero-imputed rows is that of a ridge regression on
    the full ones, by ``(1 - observed) / observed`` times the diagonal of the covariance. In
    many correlated features its bias vanishes.

    Parameters
    ----------
    step : float, default 0.25
        Constant step relative to the inverse mean squared norm of a row, in (0, 1].
    fit_intercept : bool, default True
        Whether to centre by the means of the observed entries, so that a gap counts as the
        mean.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Average of the iterates.
    intercept_ : float
        Prediction of a row of zeros; zero without an intercept.
    means_ : array of shape (n_features,)
        What replaces missing entries.

    Raises
    ------
    OptionError
        If `step` is not in (0, 1].

    References
    ----------
    Ayme, Boyer, Dieuleveut and Scornet, Naive imputation implicitly regularizes
    high-dimensional linear models (ICML 2023), arXiv:2301.13585, for the ridge penalty and
    averaged gradient descent on imputed rows.

    Bach and Moulines, Non-strongly-convex smooth stochastic approximation with convergence
    rate O(1/n) (2013), for averaging at a constant step and the default of it.
    """

    card = Card(
        name="zero-imputation",
        title="Naive imputation implicitly regularizes high-dimensional linear models",
        authors="Alexis Ayme, Claire Boyer, Aymeric Dieuleveut, Erwan Scornet",
        year=2023,
        arxiv="2301.13585",
        summary="one pass of averaged SGD on zero-imputed rows; the gaps act as a ridge penalty",
    )

    def __init__(self, step: float = 0.25, *, fit_intercept: bool = True) -> None:
        self.step = step
        self.fit_intercept = fit_intercept

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.regressor_tags.poor_score = True  # one pass over few samples is far from the optimum
        return tags

    def fit(self, X: Any, y: Any) -> ZeroImputedRegression:
        """Take one gradient step per row, in order, and average.

        Parameters
        ----------
        X : array or data frame of shape (n_samples, n_features)
            Missing entries are NaN.
        y : array of shape (n_samples,)
            Target.

        Returns
        -------
        self
            Fitted.
        """
        check_number("step", self.step, above=0.0, most=1.0)
        X, y = validate_data(
            self, X, y, dtype=np.float64, ensure_all_finite="allow-nan", y_numeric=True
        )
        self.means_ = np.zeros(X.shape[1])
        if self.fit_intercept:
            seen = ~np.isnan(X)
            sums = np.where(seen, X, 0).sum(axis=0)
            self.means_ = sums / np.maximum(seen.sum(axis=0), 1)
        centring = Centring(self.means_, float(np.mean(y)) if self.fit_intercept else 0.0)
        rows = centring.columns(self._filled(X))
        power = float(np.einsum("ij,ij->", rows, rows)) / len(rows)
        step = self.step / power if power > 0 else 0.0
        coef = np.zeros(X.shape[1])
        self.coef_ = np.zeros(X.shape[1])
        for count, (row, target) in enumerate(zip(rows, y - centring.offset, strict=True), 1):
            coef += step * (target - row @ coef) * row
            self.coef_ += (coef - self.coef_) / count
        self.intercept_ = float(centring.intercept(self.coef_))
        return self

    def _filled(self, X: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(X), self.means_, X)

    def _features(self, X: Any) -> np.ndarray:
        return self._filled(super()._features(X))


def imputation_bias(covariance: np.ndarray, coef: np.ndarray, observed: float) -> float:
    """Return what zero imputation costs the best linear predictor.

    Parameters
    ----------
    covariance : array of shape (d, d)
        Second moments of the full features.
    coef : array of shape (d,)
        Coefficients of the target on the full features.
    observed : float
        Probability in (0, 1] with which each entry is observed, independently of all else.

    Returns
    -------
    float
        Excess mean squared error over the predictor on full features.

    Raises
    ------
    OptionError
        If `observed` is out of range.

    References
    ----------
    Ayme et al. (2023), section 3: the second moments of imputed rows are ``observed^2`` times
    the covariance plus ``observed (1 - observed)`` times its diagonal.
    """
    check_number("observed", observed, above=0.0, most=1.0)
    diagonal = np.diag(np.diag(covariance))
    moments = observed**2 * covariance + observed * (1 - observed) * diagonal
    cross = observed * covariance @ coef
    return float(coef @ covariance @ coef - cross @ np.linalg.pinv(moments, hermitian=True) @ cross)
