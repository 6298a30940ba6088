"""Regression from batches most of which may lie: a short list that holds a good answer."""

from __future__ import annotations

__all__ = ["ListDecodableRegression"]

from typing import Any

import numpy as np
from scipy.linalg import eigh
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ...core.card import Card, Catalogued
from ...core.errors import DataError
from ...core.options import check_number
from ...solve.datafits import Huber
from ...solve.design import Design
from ...solve.penalties import L1
from ...solve.solvers import CoordinateDescent, Problem
from .multi_filter import multi_filter

_SLACK = 1.5  # by which batches that agree may exceed the variance expected of them


class ListDecodableRegression(Catalogued, BaseEstimator):
    """A list of coefficients, one of which is near those of the genuine batches.

    Samples come in batches. A fraction `alpha` of the batches, less than a half perhaps, obeys
    ``y = x' w + noise``; the others are arbitrary. Weights on the batches are refined until
    those that are left agree. For given weights the coefficients at which the clipped
    gradients balance are those of a Huber regression. If the batches differ by more than
    chance in the size of their residuals, or in their mean clipped gradients along the
    direction in which these differ most, the multi-filter splits the batches in two
    overlapping parts or takes weight from those far from the bulk; otherwise the coefficients
    enter the list. A set of batches that weighs less than ``alpha / 2`` of all is dropped, so
    that the list has at most ``4 / alpha^2`` items.

    Parameters
    ----------
    alpha : float, default 0.3
        Least fraction of genuine batches, in (0, 1].
    noise : float, default 1.0
        Standard deviation of the noise of genuine samples, positive. Gradients are clipped
        at twice this residual; it need only be of the right order.

    Attributes
    ----------
    candidates_ : array of shape (n_candidates, n_features)
        Coefficients, those with most weight behind them first.
    weights_ : array of shape (n_candidates, n_batches)
        Weights in [0, 1] of the batches behind each.
    batches_ : array of shape (n_batches,)
        Labels of the batches.

    Raises
    ------
    OptionError
        If an option is out of range.
    DataError
        If `groups` has another length than the target, a batch has a single sample, or no
        batches of weight ``alpha / 2`` agree.

    Notes
    -----
    A simplified form: the constants and the schedule of clipping levels, which serve the
    proof, are replaced by one level and by a comparison of the variances between and within
    batches, and the direction is sought relative to the latter, so that features need no
    scaling. The guarantee is not carried over.

    References
    ----------
    Das, Jain, Kong and Sen, Efficient list-decodable regression using batches (2023), for the
    clipped gradients and the weights on batches; Diakonikolas, Kane and Kongsgaard,
    List-decodable mean estimation via iterative multi-filtering (2020), for the filter.
    """

    card = Card(
        name="list-decodable-regression",
        title="Efficient List-Decodable Regression using Batches",
        authors="Abhimanyu Das, Ayush Jain, Weihao Kong, Rajat Sen",
        year=2022,
        arxiv="2211.12743",
        summary="a short list of regressions when most batches may be corrupted, by multi-filter",
    )

    def __init__(self, alpha: float = 0.3, *, noise: float = 1.0) -> None:
        self.alpha = alpha
        self.noise = noise

    def fit(self, X: Any, y: Any, groups: Any) -> ListDecodableRegression:
        """List candidates.

        Parameters
        ----------
        X : array or data frame of shape (n_samples, n_features)
            Features; add a column of ones for a constant.
        y : array of shape (n_samples,)
            Target.
        groups : array of shape (n_samples,)
            The batch of every sample.

        Returns
        -------
        self
            Fitted.
        """
        check_number("alpha", self.alpha, above=0.0, most=1.0)
        check_number("noise", self.noise, above=0.0)
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        if np.shape(groups) != y.shape:
            raise DataError(f"groups has shape {np.shape(groups)}, the target {y.shape}")
        self.batches_, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        if sizes.min() < 2:
            label = self.batches_[int(np.argmin(sizes))]
            raise DataError(f"batch {label!r} has a single sample; merge or remove it")
        found = self._filter(_Batches(X, y, codes, 2 * self.noise))
        if not found:
            raise DataError(
                f"no batches of weight {self.alpha} / 2 of all agree; lower alpha or raise noise"
            )
        found.sort(key=lambda item: -item[1].sum())
        self.candidates_ = np.array([coef for coef, _ in found])
        self.weights_ = np.array([weights for _, weights in found])
        return self

    def _filter(self, model: _Batches) -> list[tuple[np.ndarray, np.ndarray]]:
        """Refine weights until the batches agree; return coefficients and weights."""
        found: list[tuple[np.ndarray, np.ndarray]] = []
        waiting: list[tuple[np.ndarray, np.ndarray | None]] = [(np.ones(model.count), None)]
        while waiting:
            weights, start = waiting.pop()
            if weights.sum() < self.alpha * model.count / 2:
                continue
            coef = model.balanced(weights, start)
            parts = model.refined(coef, weights, self.alpha / 8)
            if parts is None:
                found.append((coef, weights))
            waiting += [(part, coef) for part in parts or []]
        return found

    def choose(self, X: Any, y: Any) -> np.ndarray:
        """Return the candidate that fits a few trusted samples best.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Features.
        y : array of shape (n_samples,)
            Target.

        Returns
        -------
        array of shape (n_features,)
            Coefficients.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        y = check_array(y, dtype=np.float64, ensure_2d=False)
        misfits = np.mean((y[:, None] - X @ self.candidates_.T) ** 2, axis=0)
        return np.asarray(self.candidates_[int(np.argmin(misfits))])


class _Batches:
    """The samples by batch, with what the filter asks of them.

    Parameters
    ----------
    X, y : arrays of shape (n, p) and (n,)
        Samples.
    codes : array of int of shape (n,)
        Number of each sample's batch.
    clip : float
        Residual at which gradients are clipped.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, codes: np.ndarray, clip: float) -> None:
        self.X, self.y, self.codes, self.clip = X, y, codes, clip
        self.design = Design(X)
        self.sizes = np.bincount(codes)
        self.count = len(self.sizes)

    def balanced(self, weights: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """Return the coefficients at which the weighted clipped gradients sum to zero."""
        per_sample = (weights / self.sizes)[self.codes]
        problem = Problem.build(
            self.design, self.y, Huber(self.clip), L1(0.0), per_sample, intercept=False
        )
        return CoordinateDescent().solve(problem, start).coef

    def refined(
        self, coef: np.ndarray, weights: np.ndarray, tail: float
    ) -> list[np.ndarray] | None:
        """Return better weights, one or two sets; None if the batches agree already."""
        residuals = self.X @ coef - self.y
        # Batches of one regression have residuals of one size; no sample counts without bound.
        parts = self._filtered(np.minimum(np.abs(residuals), 10 * self.clip), weights, 1.0, tail)
        if parts is not None:
            return parts
        gradients = self.X * np.clip(residuals, -self.clip, self.clip)[:, None]
        # The largest of many directions exceeds one by the edge of random matrices.
        edge = (1 + np.sqrt(self.X.shape[1] / weights.sum())) ** 2
        return self._filtered(gradients @ self._direction(gradients, weights), weights, edge, tail)

    def _direction(self, gradients: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return where the batches' means vary most, relative to the samples within batches."""
        means = self._means(gradients)
        centred = means - np.average(means, axis=0, weights=weights)
        inner = gradients - means[self.codes]
        within = (inner * (weights / self.sizes)[self.codes][:, None]).T @ inner
        within[np.diag_indices_from(within)] += 1e-9 * np.trace(within) / len(within)
        _, vectors = eigh((centred * weights[:, None]).T @ centred, within)
        return np.asarray(vectors[:, -1])

    def _filtered(
        self, values: np.ndarray, weights: np.ndarray, factor: float, tail: float
    ) -> list[np.ndarray] | None:
        """Split or trim by the batches' means of the samples' values; None if those agree.

        Means of batches that agree vary by the variance within batches over their size.
        """
        places = self._means(values)
        squares = self._means((values - places[self.codes]) ** 2)
        expected = float(np.average(squares / (self.sizes - 1), weights=weights))
        return multi_filter(places, weights, _SLACK * factor * expected, tail)

    def _means(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of the samples' values in every batch."""
        sums = np.zeros((self.count, *values.shape[1:]))
        np.add.at(sums, self.codes, values)
        return sums / self.sizes.reshape(-1, *[1] * (values.ndim - 1))
