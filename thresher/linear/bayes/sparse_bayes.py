"""Sparse Bayesian learning: a variance for every coefficient, most of which vanish."""

from __future__ import annotations

__all__ = ["SparseBayes"]

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data

from ...core.options import check_boolean, check_number, check_whole
from ...solve.centring import Centring
from ...solve.weighted_columns import WeightedColumns
from ..greedy.pursuit import positive_weights
from ..predictor import LinearRegressor

# First noise variances, as shares of the target's. From a large one alone, targets made of
# many features end in a model of a few features and much noise.
_STARTS = (0.1, 0.01, 0.001)


class SparseBayes(LinearRegressor):
    """Bayesian linear regression that learns the prior variance of every coefficient.

    Maximises the evidence of ``y = X w + b + noise`` with ``w_j ~ N(0, variance_j)``, from
    the empty model, by the single addition, change or deletion that raises it most; the noise
    variance is estimated anew whenever no change is left. That is done from several first
    noise variances, and the model of most evidence is kept. Every coefficient is in the model
    with prior probability ``1 / n_features``: evidence alone does not count how many features
    were tried, and with more features than samples it would grow without bound by fitting
    the noise.

    Parameters
    ----------
    fit_intercept : bool, default True
        Whether to fit a constant.
    tol : float, default 1e-4
        Stop when no change raises twice the log evidence by more than this.
    max_iter : int, default 2000
        Most changes from each first noise variance.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Posterior mean.
    intercept_ : float
        Constant.
    variances_ : array of shape (n_features,)
        Prior variances; zero for those that left.
    noise_variance_ : float
        Variance of the noise.
    support_ : array of int
        Features that stayed.
    covariance_ : array of shape (n_support, n_support)
        Posterior covariance of their coefficients.
    n_iter_ : int
        Changes made on the way to the model that is kept.

    Raises
    ------
    OptionError
        If `tol` is negative or `max_iter` not a whole number of at least one.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` ended the search for the model that is kept.

    References
    ----------
    Tipping, Sparse Bayesian learning and the relevance vector machine (2001); Tipping and
    Faul, Fast marginal likelihood maximisation for sparse Bayesian models (2003).
    """

    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        tol: float = 1e-4,
        max_iter: int = 2000,
    ) -> None:
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SparseBayes:
        """Fit the model.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features; computed with in double precision.
        y : array of shape (n_samples,)
            Target.
        sample_weight : array of shape (n_samples,), optional
            Weights, not negative: a sample of weight two counts as two samples.

        Returns
        -------
        self
            With the posterior in the attributes.
        """
        check_number("tol", self.tol)
        check_whole("max_iter", self.max_iter)
        check_boolean("fit_intercept", self.fit_intercept)
        X, y = validate_data(self, X, y, accept_sparse="csc", dtype=np.float64, y_numeric=True)
        X, y, weight = positive_weights(X, y, sample_weight)
        columns = WeightedColumns(X, weight, self.fit_intercept)
        target, centring = columns.target(y)
        if self.fit_intercept and np.ptp(y) <= 1e-14 * np.abs(y).max():
            target = np.zeros(len(y))  # which a constant is, but for rounding
        total = float(columns.roots @ columns.roots)
        largest = float(np.abs(target).max()) or 1.0
        unit = largest * (float(np.linalg.norm(target / largest)) / np.sqrt(total) or 1.0)
        found, self.n_iter_ = self._climb(columns, target / unit, total)
        self._keep(found, columns, centring, unit)
        return self

    def _climb(
        self, columns: WeightedColumns, y: np.ndarray, total: float
    ) -> tuple[_Posterior, int]:
        """Return the model of most evidence for a target of mean square one, or of zeros."""
        if not np.any(y):
            none = np.zeros(0)
            return _Posterior(none.astype(int), none, np.zeros((0, 0)), none, 0.0, 0.0), 1
        climb = _Climb(columns, y, total, self.tol, self.max_iter)
        found, count, converged = max(map(climb.run, _STARTS), key=lambda end: end[0].value)
        if not converged:
            warnings.warn(
                f"the evidence still rises after {count} changes; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        return found, count

    def _keep(
        self, found: _Posterior, columns: WeightedColumns, centring: Centring, unit: float
    ) -> None:
        factor = unit / columns.scale[found.kept]
        self.support_ = found.kept
        self.coef_ = np.zeros(columns.shape[1])
        self.coef_[found.kept] = found.mean * factor
        self.variances_ = np.zeros(columns.shape[1])
        self.variances_[found.kept] = found.variances * factor**2
        self.covariance_ = found.covariance * np.outer(factor, factor)
        self.noise_variance_ = float(found.noise * unit**2)
        means = centring.means
        self._centring = Centring(None if means is None else means[found.kept])
        self.intercept_ = float(centring.intercept(self.coef_))

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict the target.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Features.
        return_std : bool, default False
            Whether to return the standard deviation of the prediction too.

        Returns
        -------
        mean : array of shape (n_samples,)
            Posterior mean.
        std : array of shape (n_samples,)
            Only if asked for; noise included.
        """
        mean = self._linear_prediction(X)
        if not return_std:
            return mean
        used = self._features(X)[:, self.support_]
        used = self._centring.columns(used.toarray() if sparse.issparse(used) else used)
        variance = np.einsum("ij,jk,ik->i", used, self.covariance_, used)
        return mean, np.sqrt(variance + self.noise_variance_)


@dataclass(frozen=True)
class _Posterior:
    """A model at one noise variance.

    `value` is twice the log evidence less the entry costs, up to a constant.
    """

    kept: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    variances: np.ndarray
    noise: float
    value: float


class _Climb:
    """The ascent of the evidence, from the empty model and a given noise variance."""

    def __init__(
        self, columns: WeightedColumns, y: np.ndarray, total: float, tol: float, max_iter: int
    ) -> None:
        self.columns, self.y, self.total = columns, y, total
        self.tol, self.max_iter = tol, max_iter
        # Twice the prior log odds against being in.
        self.entry_cost = 2 * np.log(max(columns.shape[1] - 1, 1))
        self.correlations = columns.correlate(y)
        self._products: dict[int, np.ndarray] = {}

    def run(self, noise: float) -> tuple[_Posterior, int, bool]:
        """Return the best model seen, the changes made, and whether the ascent ended.

        The noise is held while the model changes. Were it estimated after every change, the
        first features would have to pay their way against nearly all of the signal as noise,
        and most would never enter.
        """
        n = self.total
        variances, rounds = np.zeros(self.columns.shape[1]), 0
        best: _Posterior | None = None
        while True:
            rounds, model = self._settle(variances, noise, rounds)
            if best is None or model.value > best.value:
                best = model
            if rounds >= self.max_iter:
                return best, rounds, False
            determined = np.sum(1 - np.diag(model.covariance) / model.variances)
            residual = self.y - self.columns.take(model.kept) @ model.mean
            noise = max(float(residual @ residual) / max(n - determined, 1e-3 * n), 1e-10)
            if abs(np.log(noise / model.noise)) <= self.tol:
                return best, rounds, True

    def _settle(self, variances: np.ndarray, noise: float, rounds: int) -> tuple[int, _Posterior]:
        """Make the best change until none is left, in place, at a noise that is held."""
        while True:
            rounds += 1
            model, cross = self._posterior(variances, noise)
            shared = np.einsum("ij,ij->i", cross @ model.covariance, cross)
            # Columns have unit norm; those that are constant correlate with nothing.
            spread = 1 / noise - shared / noise**2
            pull = (self.correlations - cross @ model.mean) / noise
            following, gains = _best_variances(spread, pull, variances, self.entry_cost)
            best = int(np.argmax(gains))
            if gains[best] <= self.tol or rounds >= self.max_iter:
                return rounds, model
            variances[best] = following[best]

    def _posterior(self, variances: np.ndarray, noise: float) -> tuple[_Posterior, np.ndarray]:
        """Return the model with the given prior, and the products of all columns with its."""
        kept = np.flatnonzero(variances)
        cross = np.empty((self.columns.shape[1], len(kept)))
        for k, j in enumerate(kept.tolist()):
            if j not in self._products:
                self._products[j] = self.columns.correlate(self.columns.take([j])[:, 0])
            cross[:, k] = self._products[j]
        prior = variances[kept]
        if len(kept) == 0:
            mean, covariance, logarithms = np.zeros(0), np.zeros((0, 0)), 0.0
        else:
            factor = cho_factor(cross[kept] / noise + np.diag(1 / prior))
            covariance = cho_solve(factor, np.eye(len(kept)))
            mean = covariance @ self.correlations[kept] / noise
            logarithms = 2 * float(np.sum(np.log(np.diag(factor[0])))) + float(
                np.sum(np.log(prior))
            )
        residual = self.y - self.columns.take(kept) @ mean
        misfit = float(residual @ residual) / noise + float(np.sum(mean**2 / prior))
        value = -self.total * np.log(noise) - logarithms - misfit - self.entry_cost * len(kept)
        return _Posterior(kept, mean, covariance, prior, noise, float(value)), cross


def _best_variances(
    spread: np.ndarray, pull: np.ndarray, variances: np.ndarray, entry_cost: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return each coefficient's best prior variance, and twice the log posterior it gains.

    `spread` and `pull` are S and Q of Tipping and Faul (2003), equations 20 to 32.
    """
    inside = variances > 0
    # Without the coefficient's own contribution, which those outside do not have.
    share = np.where(inside, np.maximum(1 - spread * variances, 1e-12), 1.0)
    s, q = spread / share, pull / share
    following = np.where(q**2 > s, np.maximum(q**2 - s, 0) / np.where(s > 0, s, np.inf) ** 2, 0.0)

    def worth(variance: np.ndarray) -> np.ndarray:
        gain = q**2 * variance / (1 + variance * s) - np.log1p(variance * s)
        return gain - entry_cost * (variance > 0)

    following = np.where(worth(following) > 0, following, 0.0)
    return following, worth(following) - worth(variances)
