"""Sparse regression where every person randomises their own data before sending it."""

from __future__ import annotations

__all__ = ["LocallyPrivateRegression", "gaussian_deviation"]

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from ...core.card import Card, Catalogued
from ...core.errors import OptionError
from ...core.options import check_count, check_number, check_whole
from ...core.prox import soft, top_k
from ..predictor import LinearRegressor


def gaussian_deviation(epsilon: float, delta: float, sensitivity: float) -> float:
    """Return the smallest deviation of Gaussian noise that is (epsilon, delta)-private.

    Parameters
    ----------
    epsilon : float
        Privacy loss, positive.
    delta : float
        Probability with which it may be exceeded, in (0, 1).
    sensitivity : float
        Largest Euclidean distance between two reports without noise, positive.

    Returns
    -------
    float
        Standard deviation per coordinate.

    Raises
    ------
    OptionError
        If an argument is out of range.

    References
    ----------
    Balle and Wang, Improving the Gaussian mechanism for differential privacy: analytical
    calibration and optimal denoising (2018), theorem 8; valid for every epsilon, where the
    classical formula needs epsilon at most one.
    """
    check_number("epsilon", epsilon, above=0.0)
    check_number("delta", delta, above=0.0, below=1.0)
    check_number("sensitivity", sensitivity, above=0.0)

    def excess(log_deviation: float) -> float:
        deviation = np.exp(log_deviation)  # relative to the sensitivity
        half, shift = 0.5 / deviation, epsilon * deviation
        return float(ndtr(half - shift) - np.exp(epsilon + log_ndtr(-half - shift)) - delta)

    return sensitivity * float(np.exp(brentq(excess, -20, 20, xtol=1e-12)))


class LocallyPrivateRegression(Catalogued, LinearRegressor):
    """Sparse linear regression under local differential privacy.

    Each row is a person who clips and randomises it with Gaussian noise; only these reports
    reach the estimate. :meth:`fit` plays both sides: it shows what such a collection would
    give, and its caller holds the data in clear.

    The non-interactive protocol takes one report of ``(x x^T, x y)`` from everybody, and
    soft-thresholds the solution of the mean equations. Given unlabelled rows that are not
    private, only ``x y`` is reported and the covariance comes from those. The interactive
    protocol divides people into rounds; each reports a clipped gradient at the current
    vector, and the mean moves it to its largest `k` entries (iterative hard thresholding).

    The features should be centred and of similar scale: there is no intercept, as means
    would have to be made private as well.

    Parameters
    ----------
    epsilon : float, default 1.0
        Privacy loss of a person's one report.
    delta : float, default 1e-5
        Probability with which it may be exceeded.
    protocol : {"non-interactive", "interactive"}, default "non-interactive"
        How people are asked.
    threshold : float, optional
        Soft threshold (non-interactive). By default a multiple of the noise that remains in
        each coefficient, from none to ``sqrt(2 log d)`` times its deviation: the one with the
        least risk by Stein's unbiased estimate. The deviations follow from the options, so
        that this costs no privacy. From the paper's bound follows only the order, that of
        the noise; the largest multiple takes more than it saves where non-zeros are not few.
    k : int, optional
        Entries kept (interactive); a tenth of the features, one at least, by default.
    rounds : int, default 10
        Rounds (interactive). What the start leaves falls by about ``1 - step`` in each; more
        rounds leave fewer people, hence more noise, to each.
    step : float, default 0.5
        Length of a gradient step relative to the inverse curvature of unit variance
        (interactive).
    bound_x : float, optional
        Euclidean norm to which rows are clipped; ``sqrt(n_features)`` by default, right for
        unit variance. It must not be chosen from the private data.
    bound_y : float, default 3.0
        Magnitude to which targets are clipped. It must not be chosen from the private data.
    random_state : int, RandomState or None, default None
        Noise.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Coefficients.
    intercept_ : float
        Zero.
    noise_deviation_ : float
        Standard deviation of the noise in every number that a person sends.

    Raises
    ------
    OptionError
        If an option is out of range.

    References
    ----------
    Zhu, Ding, Aggarwal, Xu and Wang, Improved analysis of sparse linear regression in local
    differential privacy model (ICLR 2024), arXiv:2310.07367, for the protocols.

    Donoho and Johnstone, Adapting to unknown smoothness via wavelet shrinkage (1995): the
    default threshold.
    """

    card = Card(
        name="locally-private-regression",
        title="Improved Analysis of Sparse Linear Regression in Local Differential Privacy Model",
        authors="Liyang Zhu, Meng Ding, Vaneet Aggarwal, Jinhui Xu, Di Wang",
        year=2023,
        arxiv="2310.07367",
        summary="sparse regression from reports that people randomise themselves, both protocols",
    )

    def __init__(
        self,
        epsilon: float = 1.0,
        *,
        delta: float = 1e-5,
        protocol: str = "non-interactive",
        threshold: float | None = None,
        k: int | None = None,
        rounds: int = 10,
        step: float = 0.5,
        bound_x: float | None = None,
        bound_y: float = 3.0,
        random_state: Any = None,
    ) -> None:
        self.epsilon = epsilon
        self.delta = delta
        self.protocol = protocol
        self.threshold = threshold
        self.k = k
        self.rounds = rounds
        self.step = step
        self.bound_x = bound_x
        self.bound_y = bound_y
        self.random_state = random_state

    def fit(self, X: Any, y: Any, X_public: Any = None) -> LocallyPrivateRegression:
        """Collect randomised reports and estimate the coefficients from them.

        Parameters
        ----------
        X : array or data frame of shape (n_samples, n_features)
            A row per person.
        y : array of shape (n_samples,)
            Targets.
        X_public : array of shape (n_public, n_features), optional
            Rows without targets that are not private (non-interactive).

        Returns
        -------
        self
            Fitted.

        Raises
        ------
        OptionError
            If an option is out of range, or the interactive protocol is given `X_public`.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self._check_options(X.shape[1], X_public)
        self.intercept_ = 0.0
        self._bound = np.sqrt(X.shape[1]) if self.bound_x is None else self.bound_x
        rng = check_random_state(self.random_state)
        # A person's target shrinks with the row: the equation between the two stays true.
        y = np.clip(y * _shrinkage(X, self._bound)[:, 0], -self.bound_y, self.bound_y)
        X = _clipped(X, self._bound)
        if self.protocol == "interactive":
            self.coef_ = self._interactive(X, y, rng)
        elif X_public is None:
            self.coef_ = self._non_interactive(X, y, rng)
        else:
            public = validate_data(self, X_public, dtype=np.float64, reset=False)
            self.coef_ = self._with_public(X, y, _clipped(public, self._bound), rng)
        return self

    def _check_options(self, features: int, X_public: Any) -> None:
        if self.protocol not in ("non-interactive", "interactive"):
            raise OptionError(
                f"protocol must be 'non-interactive' or 'interactive', got {self.protocol!r}"
            )
        if self.protocol == "interactive" and X_public is not None:
            raise OptionError(
                "the interactive protocol has no use for X_public; leave it out, or take "
                "protocol='non-interactive'"
            )
        if self.threshold is not None:
            check_number("threshold", self.threshold)
        if self.bound_x is not None:
            check_number("bound_x", self.bound_x, above=0.0)
        check_number("bound_y", self.bound_y, above=0.0)
        check_number("step", self.step, above=0.0)
        check_whole("rounds", self.rounds)
        if self.k is not None:
            check_count("k", self.k, features, "features")

    def _non_interactive(
        self, X: np.ndarray, y: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        d = X.shape[1]
        rows, columns = np.triu_indices(d)
        # Off-diagonal entries count twice in the norm of a symmetric matrix, so that the
        # vector of one triangle has that norm: at most bound_x squared.
        weight = np.where(rows == columns, 1.0, np.sqrt(2.0))
        size = self._bound * float(np.hypot(self._bound, self.bound_y))
        moments = X.T @ X / len(X)
        clean = np.concatenate([moments[rows, columns] * weight, X.T @ y / len(X)])
        mean = self._randomised(clean, size, rng, len(X))
        covariance = np.zeros((d, d))
        covariance[rows, columns] = covariance[columns, rows] = mean[: len(rows)] / weight
        # The noise can make the mean indefinite: its eigenvalues are held above the noise.
        values, vectors = np.linalg.eigh(covariance)
        floor = self.noise_deviation_ * np.sqrt(2 * d / len(X))
        inverse = (vectors / np.maximum(values, min(floor, values[-1]))) @ vectors.T
        coef = inverse @ mean[len(rows) :]
        # The noise of the covariance, a symmetric matrix with half the variance off the
        # diagonal, enters as its product with the coefficients.
        spread = np.eye(d) + (coef @ coef * np.eye(d) + np.outer(coef, coef)) / 2
        return self._thresholded(coef, inverse, spread, len(X))

    def _with_public(
        self, X: np.ndarray, y: np.ndarray, public: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        size = self._bound * self.bound_y
        mean = self._randomised(X.T @ y / len(X), size, rng, len(X))
        inverse = np.linalg.pinv(public.T @ public / len(public))
        return self._thresholded(inverse @ mean, inverse, np.eye(len(mean)), len(X))

    def _thresholded(
        self, coef: np.ndarray, inverse: np.ndarray, spread: np.ndarray, people: int
    ) -> np.ndarray:
        """Return the soft-thresholded solution of the mean equations.

        `spread` is the covariance of the noise in the equations, relative to the variance of
        one number.
        """
        if self.threshold is not None:
            return soft(coef, self.threshold)
        relative = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", inverse, spread, inverse), 0))
        deviation = self.noise_deviation_ / np.sqrt(people) * relative
        return soft(coef, _least_risk(coef, deviation) * deviation)

    def _interactive(self, X: np.ndarray, y: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        d = X.shape[1]
        k = max(1, d // 10) if self.k is None else self.k
        size = self._bound * self.bound_y
        coef = np.zeros(d)
        # Nobody answers twice, so that a person's loss is that of a single report.
        for group in np.array_split(rng.permutation(len(X)), min(self.rounds, len(X))):
            errors = X[group] @ coef - y[group]
            gradients = _clipped(X[group] * errors[:, None], size)
            mean = self._randomised(gradients.mean(axis=0), size, rng, len(group))
            coef = top_k(coef - self.step * mean, k)
        return coef

    def _randomised(
        self, mean: np.ndarray, size: float, rng: np.random.RandomState, people: int
    ) -> np.ndarray:
        """Return the mean of reports of norm `size` at most, each randomised by its sender.

        The mean of independent Gaussian noises is Gaussian; it is drawn at once.
        """
        self.noise_deviation_ = gaussian_deviation(self.epsilon, self.delta, 2 * size)
        return mean + self.noise_deviation_ / np.sqrt(people) * rng.standard_normal(mean.shape)


def _least_risk(estimate: np.ndarray, deviation: np.ndarray) -> float:
    """Return the multiple of the deviations that is the soft threshold of least risk.

    Stein's unbiased estimate of the squared error, which needs the variance of every entry
    only, as each is thresholded by itself; it falls between the entries' sizes and has its
    minimum at one of them.
    """
    size = np.abs(estimate) / np.maximum(deviation, 1e-300)
    largest = np.sqrt(2 * np.log(len(size)))
    multiples = np.concatenate([[0.0, largest], size[size < largest]])
    kept = size > multiples[:, None]
    variance = deviation**2
    shrinkage = np.minimum(size, multiples[:, None]) ** 2 @ variance
    return float(multiples[np.argmin(shrinkage + 2 * kept @ variance)])


def _clipped(rows: np.ndarray, bound: float) -> np.ndarray:
    """Return the rows, shortened where their Euclidean norm exceeds the bound."""
    return rows * _shrinkage(rows, bound)


def _shrinkage(rows: np.ndarray, bound: float) -> np.ndarray:
    """Return the factor in (0, 1] that brings the norm of every row to the bound at most."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.minimum(1, bound / np.maximum(norms, 1e-300))
