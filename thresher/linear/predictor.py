"""What the fitted linear models share: a prediction by ``coef_`` and ``intercept_``."""

from __future__ import annotations

__all__ = ["LinearPredictor", "LinearRegressor"]

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted, validate_data


class LinearPredictor(BaseEstimator):
    """An estimator whose ``coef_`` and ``intercept_`` are for the data as given.

    Sparse matrices are taken where the tags say so. So are gaps, which ``_features`` fills then.
    """

    coef_: Any
    intercept_: Any

    def _features(self, X: Any) -> Any:
        """Return features of new samples, checked, in the precision that they have."""
        check_is_fitted(self)
        tags = get_tags(self).input_tags
        return validate_data(
            self,
            X,
            accept_sparse=("csr", "csc") if tags.sparse else False,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan" if tags.allow_nan else True,
            reset=False,
        )

    def _linear_prediction(self, X: Any) -> np.ndarray:
        return np.asarray(self._features(X) @ self.coef_.T) + self.intercept_


class LinearRegressor(RegressorMixin, LinearPredictor):
    """A linear model of a real target."""

    def predict(self, X: Any) -> np.ndarray:
        """Predict the target.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features; sparse where ``fit`` takes sparse ones.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_outputs)
            Predictions.
        """
        return self._linear_prediction(X)
