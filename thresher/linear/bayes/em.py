"""Sparse Bayesian learning by expectation-maximisation: one loop, several E- and M-steps."""

from __future__ import annotations

__all__ = [
    "EMRegressor",
    "EMResult",
    "Expectation",
    "GAMPExpectation",
    "exact_expectation",
    "maximise_evidence",
]

import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data

from ...core.options import check_number, check_whole
from ..predictor import LinearRegressor
from ..standardised import Standardised

# From prior variances and the noise variance to posterior means and variances.
Expectation = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]
# From second moments of the posterior to the prior variances that explain them best.
Update = Callable[[np.ndarray], np.ndarray]

_SMALLEST = 1e-12  # prior variances below this share of the largest count as zero


@dataclass(frozen=True)
class EMResult:
    """Where expectation-maximisation ended.

    Parameters
    ----------
    mean, variance, prior : arrays of shape (p,)
        Posterior means and variances, and prior variances; all zero where a coefficient left.
    noise : float
        Variance of the noise.
    n_iter : int
        Rounds.
    converged : bool
        Whether the means settled.
    """

    mean: np.ndarray
    variance: np.ndarray
    prior: np.ndarray
    noise: float
    n_iter: int
    converged: bool

    def warn_unless_converged(self, tol: float, remedy: str = "raise max_iter") -> None:
        """Emit a ConvergenceWarning, as if from the caller's caller, if the means did not settle.

        Parameters
        ----------
        tol : float
            What was asked for.
        remedy : str, default "raise max_iter"
            What is advised.
        """
        if not self.converged:
            warnings.warn(
                f"coefficients still change by more than {tol:g} of their norm after "
                f"{self.n_iter} rounds; {remedy}",
                ConvergenceWarning,
                stacklevel=3,
            )


def maximise_evidence(
    A: np.ndarray,
    y: np.ndarray,
    expectation: Expectation,
    update: Update | None = None,
    tol: float = 1e-5,
    max_iter: int = 500,
    start: float | None = None,
) -> EMResult:
    """Learn prior and noise variances of ``y = A x + noise`` with ``x_j ~ N(0, prior_j)``.

    Parameters
    ----------
    A : array of shape (n, p)
        Measurements.
    y : array of shape (n,)
        What was measured, not all zero.
    expectation : callable
        The E-step.
    update : callable, optional
        The M-step of the prior; by default every coefficient has a variance of its own.
    tol : float, default 1e-5
        Stop when the means change by less than this, relative to their norm.
    max_iter : int, default 500
        Most rounds.
    start : float, optional
        First noise variance; a hundredth of the mean square of `y` by default.

    Returns
    -------
    EMResult
        Means and variances.

    References
    ----------
    Wipf and Rao, Sparse Bayesian learning for basis selection (2004), equations 17 to 20.
    """
    n, p = A.shape
    power = float(y @ y) / n
    noise = 1e-2 * power if start is None else start
    prior = np.full(p, power * n / max(float(np.sum(A**2)), 1e-300))
    mean, converged, count = np.zeros(p), False, 0
    while count < max_iter and not converged:
        count += 1
        previous = mean
        mean, variance = expectation(prior, noise)
        residual = y - A @ mean
        # Each coefficient uses up 1 - variance / prior of a degree of freedom.
        determined = np.sum(1 - np.divide(variance, prior, out=np.ones(p), where=prior > 0))
        noise = float(residual @ residual + noise * determined) / n
        noise = max(noise, 1e-10 * power)
        moments = mean**2 + variance
        prior = moments if update is None else update(moments)
        prior = np.where(prior > _SMALLEST * prior.max(), prior, 0.0)
        change = float(np.linalg.norm(mean - previous))
        converged = change <= tol * float(np.linalg.norm(mean))
    return EMResult(mean, variance, prior, noise, count, converged)


def exact_expectation(A: np.ndarray, y: np.ndarray) -> Expectation:
    """Make the E-step that inverts the covariance of `y`, at a cost of ``n^2 p``.

    Parameters
    ----------
    A : array of shape (n, p)
        Measurements.
    y : array of shape (n,)
        What was measured.

    Returns
    -------
    callable
        From prior variances and the noise variance to posterior means and variances.
    """

    def expectation(prior: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
        kept = np.flatnonzero(prior)
        used, variances = A[:, kept], prior[kept]
        covariance = (used * variances) @ used.T
        covariance[np.diag_indices_from(covariance)] += noise
        solved = cho_solve(cho_factor(covariance), used)
        mean, variance = np.zeros(len(prior)), np.zeros(len(prior))
        mean[kept] = variances * (solved.T @ y)
        shrunk = np.einsum("ij,ij->j", used, solved)
        variance[kept] = variances * np.maximum(1 - variances * shrunk, 0.0)
        return mean, variance

    return expectation


class GAMPExpectation:
    """E-step by damped Gaussian message passing, at a cost of ``n p`` per pass.

    Messages are kept from one call to the next, so that few passes suffice.

    Parameters
    ----------
    A : array of shape (n, p)
        Measurements.
    y : array of shape (n,)
        What was measured.
    damping : float
        Share of a new message that is taken, in (0, 1]; smaller converges for harder `A`.
    passes : int
        Most passes per call.
    tol : float
        Stop a call when the means change by less than this, relative to their norm.

    References
    ----------
    Rangan, Schniter, Riegler, Fletcher and Cevher, Fixed points of generalized approximate
    message passing with arbitrary matrices (2016): damping makes the Gaussian case converge.
    """

    def __init__(
        self, A: np.ndarray, y: np.ndarray, damping: float, passes: int, tol: float
    ) -> None:
        self.A, self.y = A, y
        self.damping, self.passes, self.tol = damping, passes, tol
        self._squares = A**2
        self._dual = np.zeros(A.shape[0])
        self._mean = np.zeros(A.shape[1])
        self._variance: np.ndarray | None = None

    def __call__(self, prior: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
        """Return posterior means and (approximate) variances."""
        mean = self._mean
        variance = prior.copy() if self._variance is None else np.minimum(self._variance, prior)
        for _ in range(self.passes):
            output_variance = self._squares @ variance
            output_mean = self.A @ mean - output_variance * self._dual
            dual = (self.y - output_mean) / (output_variance + noise)
            self._dual = (1 - self.damping) * self._dual + self.damping * dual
            input_variance = 1 / np.maximum(
                self._squares.T @ (1 / (output_variance + noise)), 1e-300
            )
            shrink = prior / (prior + input_variance)
            estimate = shrink * (mean + input_variance * (self.A.T @ self._dual))
            variance = shrink * input_variance
            following = (1 - self.damping) * mean + self.damping * estimate
            change = float(np.linalg.norm(following - mean))
            mean = following
            if change <= self.tol * float(np.linalg.norm(mean)):
                break
        self._mean, self._variance = mean, variance
        return mean, variance


class EMRegressor(LinearRegressor):
    """What the regressions by expectation-maximisation share: scaling there and back.

    Subclasses have the parameters ``fit_intercept``, ``tol`` and ``max_iter``.
    """

    #: What the warning advises besides more rounds.
    _remedy = "raise max_iter"

    def _check_options(self) -> None:
        """Raise OptionError if a parameter is out of range."""
        check_number("tol", self.tol)
        check_whole("max_iter", self.max_iter)

    @abstractmethod
    def _posterior(self, X: np.ndarray, y: np.ndarray) -> EMResult:
        """Return the posterior for standardised data whose target is not all zero."""

    def _nothing(self, size: int) -> EMResult:
        """Return the posterior for a target that is zero."""
        zero = np.zeros(size)
        return EMResult(zero, zero, zero, 0.0, 1, True)

    def fit(self, X: Any, y: Any) -> Self:
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

        Warns
        -----
        ConvergenceWarning
            If the coefficients did not settle.
        """
        self._check_options()
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        data = Standardised.of(X, y, self.fit_intercept)
        found = self._posterior(data.X, data.y) if np.any(data.y) else self._nothing(X.shape[1])
        found.warn_unless_converged(self.tol, self._remedy)
        self._keep(found, data)
        return self

    def _keep(self, found: EMResult, data: Standardised) -> None:
        self.coef_ = found.mean * data.factor
        self.posterior_variances_ = found.variance * data.factor**2
        self.noise_variance_ = found.noise * data.unit**2
        self.intercept_ = float(data.centring.intercept(self.coef_))
        self.n_iter_ = found.n_iter
