"""Columns and target brought to mean zero and unit mean square, and the way back to them."""

from __future__ import annotations

__all__ = ["Standardised"]

from dataclasses import dataclass

import numpy as np

from ..solve.centring import Centring


@dataclass(frozen=True)
class Standardised:
    """Data in which a prior of one width fits every coefficient.

    Parameters
    ----------
    X : array of shape (n, p)
        The columns; constant ones become zero.
    y : array of shape (n,)
        The target.
    centring : Centring
        What was subtracted from both; nothing without an intercept.
    factor : array of shape (p,)
        What turns coefficients of the standardised data into those of the data as given;
        zero for constant columns.
    unit : float
        Root mean square of the target; 1 where it vanishes.
    """

    X: np.ndarray
    y: np.ndarray
    centring: Centring
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
        centring = Centring.of(X, y, fit_intercept)
        centred, target = centring.columns(X), y - centring.offset
        scale = np.sqrt(np.mean(centred**2, axis=0))
        scale = np.where(scale > 1e-14 * np.abs(X).max(axis=0), scale, np.inf)
        unit = float(np.sqrt(np.mean(target**2))) or 1.0
        return cls(centred / scale, target / unit, centring, unit / scale, unit)
