"""Survival curves: how likely a sample is to be without its event at a time."""

from __future__ import annotations

__all__ = ["SurvivalCurves"]

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from ...core.errors import DataError, OptionError
from ...solve.datafits import Cox
from ...solve.datafits.survival import concordance


class SurvivalCurves(BaseEstimator):
    """Give a model of hazard ratios the hazard that all samples share.

    Parameters
    ----------
    estimator : estimator
        Whose ``predict`` is a log hazard ratio: ``SparseGLM(datafits.Cox())``, the same by
        cross-validation, or a pipeline that ends with one. It is fitted with the curves.

    Attributes
    ----------
    estimator_ : estimator
        Fitted.
    times_ : array of shape (n_times,)
        Times seen, ascending.
    hazard_ : array of shape (n_times,)
        Cumulative hazard of a sample of prediction zero, from each time to the next.

    Raises
    ------
    OptionError
        If the estimator is none.
    DataError
        If the target is not one that :class:`~thresher.solve.datafits.survival.Cox` takes, or no
        event was seen; if a curve is asked for beyond the last time seen.

    References
    ----------
    Breslow, discussion of Cox, Regression models and life-tables (1972), for the hazard; with
    ``Cox(ties="efron")`` tied events meet the risk of Efron (1977).

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import SparseGLM, SurvivalCurves, datafits
    >>> X = np.array([[0.0], [0.0], [0.0], [0.0]])
    >>> times = np.array([1.0, -2.0, 3.0, 4.0])  # the second was censored
    >>> curves = SurvivalCurves(SparseGLM(datafits.Cox())).fit(X, times)
    >>> curves.hazard_.round(2)  # 1 of 4, none, 1 of 2, 1 of 1
    array([0.25, 0.25, 0.75, 1.75])
    >>> curves.survival(X[:1], [0.5, 3]).round(2)
    array([[1.  , 0.47]])
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SurvivalCurves:
        """Fit the estimator, and the hazard that goes with it.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        y : array
            Times with events, as :class:`~thresher.solve.datafits.survival.Cox` takes them.
        sample_weight : array of shape (n_samples,), optional
            Relative weights, not negative.

        Returns
        -------
        self
            Fitted.
        """
        if not hasattr(self.estimator, "predict"):
            raise OptionError(
                "estimator must predict log hazard ratios, such as SparseGLM(datafits.Cox()), got "
                f"{self.estimator!r}"
            )
        given = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.estimator_ = clone(self.estimator).fit(X, y, **given)
        datafit = getattr(self.estimator, "datafit", None)
        cox = datafit if isinstance(datafit, Cox) else Cox()
        if cox.strata is not None:
            raise OptionError(
                "strata have hazards of their own, and SurvivalCurves knows one; fit each stratum"
            )
        signed = np.asarray(cox.target(y), dtype=float)
        weight = np.ones(len(signed)) if sample_weight is None else np.asarray(sample_weight, float)
        if said := cox.degeneracy(signed, weight, True):
            raise DataError(said)
        self.times_, self.hazard_ = cox.cumulative_hazard(signed, self._risk(X), weight)
        return self

    def survival(self, X: Any, times: Any) -> np.ndarray:
        """Return the probability of no event until some times.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        times : array of shape (n_times,)
            Not after the last time seen, beyond which nothing is known.

        Returns
        -------
        array of shape (n_samples, n_times)
        """
        check_is_fitted(self)
        times = np.asarray(times, dtype=float)
        beyond = times[~(times <= self.times_[-1])]
        if beyond.size:
            raise DataError(
                f"no sample was followed until {beyond[0]:g}; ask for times up to "
                f"{self.times_[-1]:g}"
            )
        place = np.searchsorted(self.times_, times, side="right")
        hazard = np.concatenate([[0.0], self.hazard_])[place]
        return np.asarray(np.exp(-np.outer(np.exp(self._risk(X)), hazard)))

    def predict(self, X: Any) -> np.ndarray:
        """Return the time at which half of such samples have had their event.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.

        Returns
        -------
        array of shape (n_samples,)
            The first time at which survival is at most one half; infinite where it stays above.
        """
        check_is_fitted(self)
        needed = np.log(2) * np.exp(-self._risk(X))
        place = np.searchsorted(self.hazard_, needed * (1 - 1e-12))
        return np.append(self.times_, np.inf)[place]

    def score(self, X: Any, y: Any) -> float:
        """Return how often the sample of higher risk has its event first (Harrell's C)."""
        check_is_fitted(self)
        return concordance(np.asarray(Cox().target(y), dtype=float), self._risk(X))

    def _risk(self, X: Any) -> np.ndarray:
        return np.asarray(self.estimator_.predict(X), dtype=float).ravel()
