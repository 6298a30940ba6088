"""What is taken from columns and target before a fit, and the constant that makes up for it."""

from __future__ import annotations

__all__ = ["Centring"]

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Centring:
    """Means of columns and of a target; coefficients are the same with them and without.

    ``X w + intercept`` predicts the target as given, ``(X - means) w + constant`` what is left of
    it without its own mean.

    Parameters
    ----------
    means : array of shape (p,), optional
        Taken from the columns; nothing by default.
    offset : float or array of shape (outputs,), default 0
        Taken from the target.
    """

    means: np.ndarray | None = None
    offset: Any = 0.0

    @classmethod
    def of(cls, X: np.ndarray, y: np.ndarray, fit_intercept: bool = True) -> Centring:
        """Return the centring by plain means; that of nothing where there is no intercept.

        Parameters
        ----------
        X : array of shape (n, p)
            Features.
        y : array of shape (n,)
            Target.
        fit_intercept : bool, default True
            Whether a constant is fitted, that can make up for it.
        """
        return cls(X.mean(axis=0), float(np.mean(y))) if fit_intercept else cls()

    def columns(self, X: Any) -> Any:
        """Return dense columns without their means, in the precision of these."""
        return X if self.means is None else X - self.means

    def constant(self, coef: np.ndarray, intercept: Any) -> Any:
        """Return the constant of centred data that goes with an intercept of the data as given."""
        return intercept - self.offset + self._shift(coef)

    def intercept(self, coef: np.ndarray, constant: Any = 0.0) -> Any:
        """Return the intercept of the data as given that goes with a constant of centred data.

        Parameters
        ----------
        coef : array of shape (p,) or (p, outputs)
            Coefficients.
        constant : float or array of shape (outputs,), default 0
            Zero is the best one of squares.
        """
        return constant + self.offset - self._shift(coef)

    def gradient(self, gradient: np.ndarray, drift: np.ndarray) -> np.ndarray:
        """Return the gradient of a loss by coefficients of centred columns.

        Parameters
        ----------
        gradient : array of shape (p,) or (p, outputs)
            That by coefficients of the columns as given.
        drift : array of shape () or (outputs,)
            The derivative by the constant.
        """
        return gradient if self.means is None else gradient - np.multiply.outer(self.means, drift)

    def _shift(self, coef: np.ndarray) -> Any:
        if self.means is None:
            return 0.0
        return np.asarray(self.means, dtype=float) @ np.asarray(coef, dtype=float)
