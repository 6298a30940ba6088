"""Sparse Bayesian learning: a variance for every coefficient, most of which vanish."""

from __future__ import annotations

__all__ = ["SparseBayes"]

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from ..core.options import check_number, check_whole
from .standardised import Standardised

# First noise variances, as shares of the target's. From a large one alone, targets made of
# many features end in a model of a few features and much noise.
_STARTS = (0.1, 0.01, 0.001)


class SparseBayes(RegressorMixin, BaseEstimator):
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

    def fit(self, X: Any, y: Any) -> SparseBayes:
        """Fit the model.

        Parameters
        ----------
        X : array or data frame of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,)
            Target.

        Returns
        -------
        self
            With the posterior in the attributes.
        """
        check_number("tol", self.tol)
        check_whole("max_iter", self.max_iter)
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        data = Standardised.of(X, y, self.fit_intercept)
        climb = _Climb(data.X, data.y, self.tol, self.max_iter)
        power = max(float(data.y @ data.y) / len(y), 1e-300)
        ends = [climb.run(share * power) for share in _STARTS]
        found, self.n_iter_, converged = max(ends, key=lambda end: end[0].value)
        if not converged:
            warnings.warn(
                f"the evidence still rises after {self.n_iter_} changes; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._keep(found, data)
        return self

    def _keep(self, found: _Posterior, data: Standardised) -> None:
        factor = data.factor[found.kept]
        self.support_ = found.kept
        self.coef_ = np.zeros(data.X.shape[1])
        self.coef_[found.kept] = found.mean * factor
        self.variances_ = np.zeros(data.X.shape[1])
        self.variances_[found.kept] = found.variances * factor**2
        self.covariance_ = found.covariance * np.outer(factor, factor)
        self.noise_variance_ = float(found.noise * data.unit**2)
        self._means = data.means
        self.intercept_ = data.intercept(self.coef_)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict the target.

        Parameters
        ----------
        X : array or data frame of shape (n_samples, n_features)
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
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        mean = X @ self.coef_ + self.intercept_
        if not return_std:
            return mean
        used = X[:, self.support_] - self._means[self.support_]
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

    def __init__(self, X: np.ndarray, y: np.ndarray, tol: float, max_iter: int) -> None:
        self.X, self.y, self.tol, self.max_iter = X, y, tol, max_iter
        # Twice the prior log odds against being in.
        self.entry_cost = 2 * np.log(max(X.shape[1] - 1, 1))
        self.correlations = X.T @ y
        self.squares = np.einsum("ij,ij->j", X, X)
        self._products: dict[int, np.ndarray] = {}

    def run(self, noise: float) -> tuple[_Posterior, int, bool]:
        """Return the best model seen, the changes made, and whether the ascent ended.

        The noise is held while the model changes. Were it estimated after every change, the
        first features would have to pay their way against nearly all of the signal as noise,
        and most would never enter.
        """
        n = len(self.y)
        variances, rounds = np.zeros(self.X.shape[1]), 0
        best: _Posterior | None = None
        while True:
            rounds, model = self._settle(variances, noise, rounds)
            if best is None or model.value > best.value:
                best = model
            if rounds >= self.max_iter:
                return best, rounds, False
            determined = np.sum(1 - np.diag(model.covariance) / model.variances)
            residual = self.y - self.X[:, model.kept] @ model.mean
            noise = max(float(residual @ residual) / max(n - determined, 1e-3 * n), 1e-10)
            if abs(np.log(noise / model.noise)) <= self.tol:
                return best, rounds, True

    def _settle(self, variances: np.ndarray, noise: float, rounds: int) -> tuple[int, _Posterior]:
        """Make the best change until none is left, in place, at a noise that is held."""
        while True:
            rounds += 1
            model, cross = self._posterior(variances, noise)
            shared = np.einsum("ij,ij->i", cross @ model.covariance, cross)
            spread = self.squares / noise - shared / noise**2
            pull = (self.correlations - cross @ model.mean) / noise
            following, gains = _best_variances(spread, pull, variances, self.entry_cost)
            best = int(np.argmax(gains))
            if gains[best] <= self.tol or rounds >= self.max_iter:
                return rounds, model
            variances[best] = following[best]

    def _posterior(self, variances: np.ndarray, noise: float) -> tuple[_Posterior, np.ndarray]:
        """Return the model with the given prior, and ``X.T @ X`` at its columns."""
        kept = np.flatnonzero(variances)
        cross = np.empty((self.X.shape[1], len(kept)))
        for k, j in enumerate(kept.tolist()):
            if j not in self._products:
                self._products[j] = self.X.T @ self.X[:, j]
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
        residual = self.y - self.X[:, kept] @ mean
        misfit = float(residual @ residual) / noise + float(np.sum(mean**2 / prior))
        value = -len(self.y) * np.log(noise) - logarithms - misfit - self.entry_cost * len(kept)
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
