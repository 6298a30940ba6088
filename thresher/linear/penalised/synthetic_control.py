"""Synthetic control whose weights are spread evenly instead of concentrated."""

from __future__ import annotations

__all__ = ["SyntheticControl"]

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from ...core.card import Card, Catalogued
from ...solve.penalties import L1LInf, Penalty
from .model import SparseRegressor
from .parameters import Share, Strength, Switch, Whole


@dataclass(eq=False, repr=False)
class SyntheticControl(Catalogued, SparseRegressor):
    """Weights of control units that rebuild a treated unit, under an L-infinity penalty.

    Minimises ``||y - X w - b||^2 / (2 n) + alpha (l1_ratio ||w||_1 + (1 - l1_ratio) max|w|)``
    over the periods before a treatment, where column j of `X` is the outcome of control unit
    j. Weights may be negative and need not sum to one; the largest is held down, so that no
    few units carry the estimate. Periods are the samples: choose `alpha` by
    ``GridSearchCV`` with ``TimeSeriesSplit``.

    Parameters
    ----------
    alpha : float, default 1
        Strength. Large values pull all weights to one magnitude and then to zero.
    l1_ratio : float, default 0
        Share of the L1 norm, which lets units leave.
    fit_intercept : bool, default True
        Whether to fit a constant difference of levels.
    tol : float, default 1e-6
        Violation of optimality to reach, relative to that of zero weights.
    max_iter : int, default 2000
        A tenth of the most proximal gradient steps.
    warm_start : bool, default False
        Whether a refit starts from the last weights.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Weights of the control units.
    intercept_ : float
        Difference of levels.
    criterion_ : float
        Relative violation of optimality at the end.
    n_iter_ : int
        Steps.

    Raises
    ------
    OptionError
        When fitting: if `alpha` or `tol` is negative, `l1_ratio` not from 0 to 1, or `max_iter`
        not a whole number of at least one.

    References
    ----------
    Wang, Xing and Ye, A L-infinity norm synthetic control approach (2025), arXiv:2510.26053,
    equations 4 and 5, up to the scale of the squares.
    """

    card = Card(
        name="l-infinity-synthetic-control",
        title="A L-infinity Norm Synthetic Control Approach",
        authors="Le Wang, Xin Xing, Youhui Ye",
        year=2025,
        arxiv="2510.26053",
        summary="synthetic control with dense weights: least squares under the maximum norm",
    )

    alpha: Strength = 1.0
    l1_ratio: Share = 0.0
    _: KW_ONLY
    max_iter: Whole = 2000
    warm_start: Switch = False

    def _penalty(self, n_features: int, alpha: float) -> Penalty:
        return L1LInf(alpha, self.l1_ratio)

    def effect(self, X: Any, y: Any) -> np.ndarray:
        """Return the estimated effect of the treatment in every later period.

        Parameters
        ----------
        X : array of shape (n_periods, n_features)
            Outcomes of the control units.
        y : array of shape (n_periods,)
            Outcome of the treated unit.

        Returns
        -------
        array of shape (n_periods,)
            What was observed less what the control units predict.
        """
        return np.asarray(y, dtype=float) - self.predict(X)
