"""Sparse Bayesian regression whose non-zeros come in runs of neighbouring columns."""

from __future__ import annotations

__all__ = ["ClusteredBayes"]

import numpy as np
from scipy.special import expit, gammaln

from ...core.card import Card, Catalogued
from ...core.errors import OptionError
from ...core.options import check_number
from ..standardised import Standardised
from .em import EMRegressor, EMResult, exact_expectation, maximise_evidence

# Shape and rate of the Gamma priors of a coefficient's precision, in the support and outside,
# where coefficients in the support have unit variance.
_INSIDE, _OUTSIDE = (1.0, 1.0), (1.0, 1e-3)
# Rounds without supports at first: with more columns than samples, a broad prior of all
# coefficients is a fixed point of the variational updates.
_WARM_UP = 30


class ClusteredBayes(Catalogued, EMRegressor):
    """Linear regression by Turbo-VBI: a Markov chain of supports over precisions over weights.

    Column j is in the support or not; the support is a Markov chain along the columns, whose
    order therefore matters. The precision of a coefficient is Gamma distributed, large
    outside the support, and the coefficient Gaussian. Variational updates of coefficients, and
    of precisions with supports (module A), exchange extrinsic probabilities with a forward and
    backward pass over the chain (module B). Columns and target are brought to unit mean
    square first, and coefficients in the support are expected to explain all of the target.

    Parameters
    ----------
    density : float, default 0.1
        Prior probability of a column to be in the support, in (0, 1).
    run_length : float, default 5
        Prior mean length of a run of columns in the support, above 1.
        ``1 / (1 - density)`` makes columns independent.
    fit_intercept : bool, default True
        Whether to fit a constant.
    tol : float, default 1e-4
        Stop when the coefficients change by less than this, relative to their norm.
    max_iter : int, default 500
        Most rounds.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Posterior mean.
    intercept_ : float
        Constant.
    probabilities_ : array of shape (n_features,)
        Posterior probabilities of being in the support.
    posterior_variances_ : array of shape (n_features,)
        Posterior variances.
    noise_variance_ : float
        Variance of the noise.
    n_iter_ : int
        Rounds.

    Raises
    ------
    OptionError
        If `density` or `run_length` is out of range, or they contradict each other.

    References
    ----------
    Xia, Tsang and Lau, Structured Bayesian compression for deep neural networks based on the
    Turbo-VBI approach (2023), sections III and IV, for one linear layer; the compression of
    networks is not part of this class. Precisions and supports are updated jointly, where the
    paper factorises their posterior. Tzikas, Likas and Galatsanos, The variational
    approximation for Bayesian inference (2008), for the conjugate updates.
    """

    card = Card(
        name="turbo-vbi",
        title="Structured Bayesian Compression for Deep Neural Networks Based on The Turbo-VBI "
        "Approach",
        authors="Chengyu Xia, Danny H. K. Tsang, Vincent K. N. Lau",
        year=2023,
        arxiv="2302.10483",
        summary="variational sparse regression with a Markov chain over the support, in runs",
    )

    def __init__(
        self,
        density: float = 0.1,
        *,
        run_length: float = 5.0,
        fit_intercept: bool = True,
        tol: float = 1e-4,
        max_iter: int = 500,
    ) -> None:
        self.density = density
        self.run_length = run_length
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    def _posterior(self, X: np.ndarray, y: np.ndarray) -> EMResult:
        supports = _Supports(self.density, self.run_length, X.shape[1])
        found = maximise_evidence(
            X, y, exact_expectation(X, y), supports.update, self.tol, self.max_iter
        )
        self.probabilities_ = supports.posterior
        return found

    def _nothing(self, size: int) -> EMResult:
        supports = _Supports(self.density, self.run_length, size)
        supports.update(np.zeros(size))
        self.probabilities_ = supports.posterior
        return super()._nothing(size)

    def _keep(self, found: EMResult, data: Standardised) -> None:
        super()._keep(found, data)
        self.probabilities_ = np.where(data.factor > 0, self.probabilities_, 0.0)


class _Supports:
    """Variational posteriors of precisions and supports, as an M-step of the prior variances."""

    def __init__(self, density: float, run_length: float, size: int) -> None:
        check_number("density", density, above=0.0, below=1.0)
        check_number("run_length", run_length, above=1.0)
        leave = 1 / run_length
        enter = leave * density / (1 - density)  # keeps the density along the chain
        if enter >= 1:
            raise OptionError(
                f"runs of mean length {run_length} cannot fill {density:g} of the columns; raise "
                "run_length"
            )
        self.start = np.array([1 - density, density])
        self.transition = np.array([[1 - enter, enter], [leave, 1 - leave]])
        self.posterior = np.full(size, density)
        self.rounds = 0
        # The variance in the support with which predictions have the target's power, one.
        self.unit = 1 / (density * size)

    def update(self, moments: np.ndarray) -> np.ndarray:
        """Return the prior variances that follow from second moments of the coefficients."""
        self.rounds += 1
        if self.rounds <= _WARM_UP:
            return moments
        scaled = moments / self.unit
        inside, precision = _precision(scaled, *_INSIDE)
        outside, precision_outside = _precision(scaled, *_OUTSIDE)
        evidence = inside - outside
        prior = extrinsic(evidence, self.start, self.transition)
        self.posterior = expit(evidence + np.log(prior) - np.log1p(-prior))
        mean = self.posterior * precision + (1 - self.posterior) * precision_outside
        return np.asarray(self.unit / mean)


def _precision(moments: np.ndarray, shape: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the log evidence of a Gamma prior of each precision, and its posterior mean."""
    shape_after, rate_after = shape + 0.5, rate + moments / 2
    evidence = shape * np.log(rate) - gammaln(shape) + gammaln(shape_after)
    return evidence - shape_after * np.log(rate_after), shape_after / rate_after


def extrinsic(evidence: np.ndarray, start: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """Return each state's probability given the evidence on all the others.

    Parameters
    ----------
    evidence : array of shape (p,)
        Log likelihood ratio of state one against state zero, for every place of a chain.
    start : array of shape (2,)
        Probabilities of the first state, which are those of every state a priori.
    transition : array of shape (2, 2)
        Probabilities from the state in the row to that in the column.

    Returns
    -------
    array of shape (p,)
        Probabilities of state one, within rounding of zero and one at most.
    """
    size = len(evidence)
    likelihood = np.column_stack([expit(-evidence), expit(evidence)])
    forward, backward = np.empty((size, 2)), np.ones((size, 2))
    forward[0] = start
    for j in range(1, size):
        message = (forward[j - 1] * likelihood[j - 1]) @ transition
        forward[j] = message / message.sum()
    for j in range(size - 2, -1, -1):
        message = transition @ (backward[j + 1] * likelihood[j + 1])
        backward[j] = message / message.sum()
    joint = forward * backward
    return np.clip(joint[:, 1] / joint.sum(axis=1), 1e-12, 1 - 1e-12)
