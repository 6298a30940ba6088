"""Columns and target brought to mean zero and unit mean square, and the way back to them."""

from __future__ import annotations

__all__ = ["LinearRegressor", "Standardised"]

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data


@dataclass(frozen=True)
class Standardised:
    """Data in which a prior of one width fits every coefficient.

    Parameters
    ----------
    X : array of shape (n, p)
        The columns; constant ones become zero.
    y : array of shape (n,)
        The target.
    means : array of shape (p,)
        What was subtracted from the columns; zero without an intercept.
    offset : float
        What was subtracted from the target.
    factor : array of shape (p,)
        What turns coefficients of the standardised data into those of the data as given;
        zero for constant columns.
    unit : float
        Root mean square of the target; 1 where it vanishes.
    """

    X: np.ndarray
    y: np.ndarray
    means: np.ndarray
    offset: float
    factor: np.ndarray
    unit: float

    @classmethod
    def of(cls, X: np.ndarray, y: np.ndarray, fit_intercept: bool) -> Standardised:
        """Standardise; the means stay where there is no intercept.

        Parameters
        ----------
        X : array of shape (n, p)
            Features.
        y : array of shape (n,)
            Target.
        fit_intercept : bool
            Whether a constant is fitted.
        """
        means = X.mean(axis=0) if fit_intercept else np.zeros(X.shape[1])
        offset = float(np.mean(y)) if fit_intercept else 0.0
        centred, target = X - means, y - offset
        scale = np.sqrt(np.mean(centred**2, axis=0))
        scale = np.where(scale > 1e-14 * np.abs(X).max(axis=0), scale, np.inf)
        unit = float(np.sqrt(np.mean(target**2))) or 1.0
        return cls(centred / scale, target / unit, means, offset, unit / scale, unit)

    def intercept(self, coef: np.ndarray) -> float:
        """Return the constant that belongs to coefficients of the data as given."""
        return self.offset - float(self.means @ coef)


class LinearRegressor(RegressorMixin, BaseEstimator):
    """A regression on dense data whose ``coef_`` and ``intercept_`` are for the data as given."""

    coef_: np.ndarray
    intercept_: float

    def predict(self, X: Any) -> np.ndarray:
        """Predict the target of every row of `X`, of shape (n_samples,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_ + self.intercept_)
