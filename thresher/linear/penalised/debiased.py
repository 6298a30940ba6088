"""The Lasso with its bias taken back, for intervals and p-values of single coefficients."""

from __future__ import annotations

__all__ = ["DebiasedLasso"]

from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import norm
from sklearn.utils.validation import check_is_fitted, validate_data

from ...core.errors import DataError
from ...core.options import check_number
from ..predictor import LinearRegressor
from .cross_validation import LassoCV
from .lasso import Lasso
from .parameters import check_jobs

#: A feature of which this share is left, in units of its spread, is explained by the others.
_NOTHING = 1e-7


class DebiasedLasso(LinearRegressor):
    """Say how sure the coefficients of a Lasso are, with more features than samples too.

    To a feature's coefficient is added what the residual of the fit says along the part of the
    feature that the others do not explain, which a Lasso of the feature on them finds. The sums
    are nearly normal around the truth, with a known spread; ``coef_`` stays the Lasso's, which
    predicts better.

    Parameters
    ----------
    alpha : float, optional
        Strength of the Lasso.  [default: by cross-validation]
    node_alpha : float, optional
        Strength of the Lassos of features on each other, for features of variance one.
        [default: ``sqrt(2 log(n_features) / n_samples)``]
    n_jobs : int, optional
        Features at a time; one by default.

    Attributes
    ----------
    coef_, intercept_ : array of shape (n_features,), float
        Of the Lasso.
    debiased_ : array of shape (n_features,)
        Estimates around which intervals lie; 0 where the others explain a feature, or it is
        constant.
    stderr_ : array of shape (n_features,)
        Their standard errors; infinite there.
    pvalues_ : array of shape (n_features,)
        Two-sided, of a coefficient being zero; one by one, so that many of them need
        ``scipy.stats.false_discovery_control``.
    noise_ : float
        Estimated standard deviation of the target around the model.

    Raises
    ------
    OptionError
        If a strength is negative or not finite.
    DataError
        If the Lasso keeps as many features as there are samples, which leaves no residual.

    Notes
    -----
    Intervals hold for a linear model with independent noise of one variance, and few non-zero
    coefficients: fewer than about ``sqrt(n_samples) / log(n_features)``. Where there are more
    samples than features, and `node_alpha` is 0, estimates are those of least squares.

    References
    ----------
    Zhang and Zhang, Confidence intervals for low dimensional parameters in high dimensional linear
    models (2014); van de Geer, Bühlmann, Ritov and Dezeure, On
    asymptotically optimal confidence regions and tests for high-dimensional models (2014).

    Examples
    --------
    >>> import numpy as np
    >>> from thresher.linear import DebiasedLasso
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((100, 150))
    >>> y = 2 * X[:, 3] + rng.standard_normal(100)
    >>> model = DebiasedLasso().fit(X, y)
    >>> model.interval()[3].round(1)
    array([1.8, 2.2])
    """

    def __init__(
        self,
        alpha: float | None = None,
        *,
        node_alpha: float | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.alpha = alpha
        self.node_alpha = node_alpha
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any) -> DebiasedLasso:
        """Fit the Lasso, and a Lasso of every feature on the others.

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
        for name in ("alpha", "node_alpha"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value)
        check_jobs("n_jobs", self.n_jobs)
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        model: Any = LassoCV() if self.alpha is None else Lasso(self.alpha)
        model.fit(X, y)
        self.coef_, self.intercept_ = model.coef_, model.intercept_
        residual = y - model.predict(X)
        left = len(y) - np.count_nonzero(self.coef_) - 1
        if left < 1:
            raise DataError(
                f"the Lasso keeps {np.count_nonzero(self.coef_)} features of {len(y)} samples, "
                "which leaves nothing to tell the noise by; raise alpha"
            )
        self.noise_ = float(np.sqrt(residual @ residual / left))
        self._take_back(X, residual)
        return self

    def _take_back(self, X: np.ndarray, residual: np.ndarray) -> None:
        """Set the estimates and their errors, of features in units of their spread."""
        spread = X.std(axis=0)
        self.debiased_ = np.zeros(X.shape[1])
        self.stderr_ = np.full(X.shape[1], np.inf)
        varies = np.flatnonzero(spread > 0)
        scaled = (X[:, varies] - X[:, varies].mean(axis=0)) / spread[varies]
        parts = self._unexplained(scaled)
        lengths = np.linalg.norm(parts, axis=0)
        alone = lengths > _NOTHING * np.sqrt(len(X))
        here, parts, lengths = varies[alone], parts[:, alone], lengths[alone]
        shared = np.einsum("ij,ij->j", parts, scaled[:, alone])
        self.debiased_[here] = self.coef_[here] + residual @ parts / shared / spread[here]
        self.stderr_[here] = self.noise_ * lengths / np.abs(shared) / spread[here]

    def _unexplained(self, scaled: np.ndarray) -> np.ndarray:
        """Return the residual of every feature on all others, of shape (n_samples, n_features)."""
        samples, count = scaled.shape
        alpha = np.sqrt(2 * np.log(max(count, 1)) / samples)
        alpha = alpha if self.node_alpha is None else self.node_alpha

        def residual(j: int) -> np.ndarray:
            others = np.delete(scaled, j, axis=1)
            if not others.shape[1]:
                return scaled[:, j]
            found = _on_others(others, scaled[:, j], alpha)
            return np.asarray(scaled[:, j] - others @ found)

        found = Parallel(n_jobs=self.n_jobs, prefer="threads")(
            delayed(residual)(j) for j in range(count)
        )
        return np.column_stack(found) if found else scaled

    @property
    def pvalues_(self) -> np.ndarray:
        """Of every coefficient being zero."""
        check_is_fitted(self)
        return np.asarray(2 * norm.sf(np.abs(self.debiased_) / self.stderr_))

    def interval(self, level: float = 0.95) -> np.ndarray:
        """Return the interval of every coefficient.

        Parameters
        ----------
        level : float, default 0.95
            Share of intervals that hold the truth, each by itself.

        Returns
        -------
        array of shape (n_features, 2)
            Lower and upper ends.

        Raises
        ------
        OptionError
            If the level is not between 0 and 1.
        """
        check_is_fitted(self)
        check_number("level", level, above=0.0, below=1.0)
        ends = norm.ppf((1 + level) / 2) * self.stderr_
        return np.column_stack([self.debiased_ - ends, self.debiased_ + ends])


def _on_others(others: np.ndarray, feature: np.ndarray, alpha: float) -> np.ndarray:
    if alpha == 0:
        return np.asarray(np.linalg.lstsq(others, feature, rcond=None)[0])
    return np.asarray(Lasso(alpha, fit_intercept=False).fit(others, feature).coef_)
