"""Unrolled thresholding whose parameters adapt to each measurement by three numbers."""

from __future__ import annotations

__all__ = ["HyperLISTA", "analytic_weight", "symmetric_weight"]

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted

from ...core import prox
from ...core.card import Card, Catalogued
from ...core.errors import DataError
from ...core.options import check_whole


def analytic_weight(A: np.ndarray) -> np.ndarray:
    """Return the companion of a matrix whose columns correlate least with its other columns.

    It minimises ``||W^T A||_F`` under ``w_i^T a_i = 1`` for every column, which makes it the
    pseudo-inverse with scaled columns. ``W^T A`` is not symmetric; :func:`symmetric_weight`
    gives the companion for which it is.

    Parameters
    ----------
    A : array of shape (m, n)
        The matrix, of full row rank, without zero columns.

    Returns
    -------
    array of shape (m, n)
        The companion.

    Raises
    ------
    DataError
        If a column is zero, or rows depend on each other.

    References
    ----------
    Liu, Chen, Wang and Yin, ALISTA: analytic weights are as good as learned weights in LISTA
    (2019), equation 16 without its bound on entries.
    """
    _check_rank(A)
    weight = np.linalg.pinv(A).T
    return weight / np.sum(weight * A, axis=0)


def symmetric_weight(A: np.ndarray) -> np.ndarray:
    """Return the companion ``W = P A``, P symmetric, that correlates least with other columns.

    It minimises ``||A^T P A||_F`` under ``a_i^T P a_i = 1`` for every column, in closed form:
    the stationary P is ``M^-1 A diag(l) A^T M^-1`` with ``M = A A^T``, and the constraints are
    linear equations for l. Where no multiplier l is negative, as for matrices without strongly
    coherent columns, ``P = G^T G``. Columns are brought to unit norm first, and W back after,
    so that ``W^T A`` is symmetric if the columns have equal norms.

    Parameters
    ----------
    A : array of shape (m, n)
        The matrix, of full row rank, without zero columns.

    Returns
    -------
    array of shape (m, n)
        The companion.

    Raises
    ------
    DataError
        If a column is zero, or rows depend on each other.

    References
    ----------
    Chen, Liu, Wang and Yin, Hyperparameter tuning is all you need for LISTA (2021), for the
    symmetric form; the closed form is the stationary point of its Lagrangian.
    """
    _check_rank(A)
    norms = np.linalg.norm(A, axis=0)
    unit = A / norms
    inverse = np.linalg.pinv(unit)
    projection = inverse @ unit
    # With P as above, the i-th of A^T P A's diagonal is sum_j projection_ij^2 l_j.
    multipliers = np.linalg.lstsq(projection**2, np.ones(len(norms)), rcond=None)[0]
    return (inverse.T * multipliers) @ projection / norms


def _check_rank(A: np.ndarray) -> None:
    """Raise unless a matrix has full row rank and no zero column."""
    zero = np.flatnonzero(~np.any(A, axis=0))
    if len(zero):
        raise DataError(f"column {zero[0]} of A is zero; drop it, nothing measures its entry")
    rank = int(np.linalg.matrix_rank(A))
    if rank < len(A):
        raise DataError(
            f"A has {len(A)} rows but rank {rank}; drop rows that others, or fewer of them, give"
        )


class HyperLISTA(Catalogued, BaseEstimator):
    """Recovers sparse vectors from ``b = A x`` in a fixed number of layers.

    A layer is ``x + W^T (b - A x)`` plus momentum, soft-thresholded with the largest entries
    left unshrunk, where W is the symmetric companion of A (:func:`symmetric_weight`).
    Threshold, momentum and the number of unshrunk entries follow from the residual and the
    non-zeros of each measurement, times one number each; only these three are fitted, without
    gradients.

    Parameters
    ----------
    n_layers : int, default 16
        Layers.
    max_evaluations : int, default 60
        Passes over the training data that refine the best of 54 starting triples.

    Attributes
    ----------
    factors_ : array of shape (3,)
        Factors of the threshold, of the momentum and of the number of unshrunk entries.
    coherence_ : float
        Largest product of a column of A and another column's companion.
    matrix_, weight_, inverse_ : arrays
        A, its companion and its pseudo-inverse.
    loss_ : float
        Mean squared error on the training vectors, relative to their mean square.

    Raises
    ------
    OptionError
        If `n_layers` or `max_evaluations` is not a whole number of at least 1.
    DataError
        If the shapes of matrix and vectors do not match, the matrix has a zero column or not
        full row rank, or all vectors are zero.

    Notes
    -----
    With the pseudo-inverse ``A^+`` and the coherence mu the layer's parameters are
    ``theta = c1 mu ||A^+ (A x - b)||_1``, ``beta = c2 mu ||x||_0`` and
    ``p = c3 min(log(||A^+ b||_1 / ||A^+ (A x - b)||_1), n)``.

    References
    ----------
    Chen, Liu, Wang and Yin, Hyperparameter tuning is all you need for LISTA (NeurIPS 2021),
    arXiv:2110.15900, for the layer's momentum and its three adaptive parameters.
    """

    card = Card(
        name="hyperlista",
        title="Hyperparameter Tuning is All You Need for LISTA",
        authors="Xiaohan Chen, Jialin Liu, Zhangyang Wang, Wotao Yin",
        year=2021,
        arxiv="2110.15900",
        summary="unrolled thresholding with momentum that adapts to each input by three numbers",
    )

    def __init__(self, n_layers: int = 16, *, max_evaluations: int = 60) -> None:
        self.n_layers = n_layers
        self.max_evaluations = max_evaluations

    def fit(self, A: Any, X: Any, B: Any = None) -> HyperLISTA:
        """Fit the three factors.

        Parameters
        ----------
        A : array of shape (m, n)
            The matrix.
        X : array of shape (n_samples, n)
            Sparse vectors as those to be recovered.
        B : array of shape (n_samples, m), optional
            Their measurements; ``X A^T`` by default.

        Returns
        -------
        self
            Fitted.
        """
        check_whole("n_layers", self.n_layers)
        check_whole("max_evaluations", self.max_evaluations)
        A, X = check_array(A, dtype=np.float64), check_array(X, dtype=np.float64)
        B = X @ A.T if B is None else check_array(B, dtype=np.float64)
        if X.shape[1] != A.shape[1] or B.shape != (len(X), len(A)):
            raise DataError(
                f"A {A.shape}, X {X.shape} and B {B.shape} do not match; B must be as X A^T"
            )
        if not X.any():
            raise DataError("X holds only zeros; give sparse vectors as those to be recovered")
        self.matrix_, self.weight_ = A, symmetric_weight(A)
        self.inverse_ = np.linalg.pinv(A)
        products = np.abs(self.weight_.T @ A)
        np.fill_diagonal(products, 0)
        self.coherence_ = float(products.max())

        def loss(logarithms: np.ndarray) -> float:
            with np.errstate(over="ignore", invalid="ignore"):
                found = self._recover(B, np.exp(logarithms))
            error = float(np.sum((found - X) ** 2) / np.sum(X**2))
            # A diverged network is worse than any other; finite, for the simplex to shrink from.
            return np.log10(max(error, 1e-30)) if np.isfinite(error) else 300.0

        # The norm in the threshold sums over n entries, so that useful factors are well below 1.
        starts = product(
            np.log([0.003, 0.01, 0.03, 0.1, 0.3, 1.0]),
            np.log([0.003, 0.03, 0.3]),
            np.log([1.0, 5.0, 25.0]),
        )
        best = min((np.array(start) for start in starts), key=loss)
        simplex = np.vstack([best, best + 0.7 * np.eye(3)])
        options = {"initial_simplex": simplex, "maxfev": self.max_evaluations}
        fitted = minimize(loss, best, method="Nelder-Mead", options=options)
        self.factors_, self.loss_ = np.exp(fitted.x), 10.0**fitted.fun
        return self

    def predict(self, B: Any) -> np.ndarray:
        """Recover the vector of every measurement.

        Parameters
        ----------
        B : array of shape (n_samples, m)
            Measurements.

        Returns
        -------
        array of shape (n_samples, n)
            Sparse vectors.
        """
        *_, last = self.layers(B)
        return last

    def layers(self, B: Any) -> Iterator[np.ndarray]:
        """Yield what every layer puts out, of shape (n_samples, n), for measurements `B`."""
        check_is_fitted(self)
        B = check_array(B, dtype=np.float64)
        if B.shape[1] != len(self.matrix_):
            raise DataError(f"B has {B.shape[1]} columns, the matrix {len(self.matrix_)} rows")
        yield from self._layers(B, self.factors_)

    def _recover(self, B: np.ndarray, factors: np.ndarray) -> np.ndarray:
        *_, last = self._layers(B, factors)
        return last

    def _layers(self, B: np.ndarray, factors: np.ndarray) -> Iterator[np.ndarray]:
        threshold, momentum, unshrunk = factors
        x = before = np.zeros((len(B), self.matrix_.shape[1]))
        first = np.sum(np.abs(B @ self.inverse_.T), axis=1, keepdims=True)
        for _ in range(self.n_layers):
            residual = B - x @ self.matrix_.T
            left = np.sum(np.abs(residual @ self.inverse_.T), axis=1, keepdims=True)
            theta = threshold * self.coherence_ * left
            beta = momentum * self.coherence_ * np.count_nonzero(x, axis=1, keepdims=True)
            gained = np.log(np.maximum(first, 1e-300) / np.maximum(left, 1e-300))
            count = unshrunk * np.clip(gained, 0, x.shape[1])
            moved = x + residual @ self.weight_ + beta * (x - before)
            before, x = x, _shrink(moved, theta, count)
            yield x


def _shrink(x: np.ndarray, threshold: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Threshold every row, the given number of its largest entries without shrinking them."""
    size = np.abs(x)
    rank = np.argsort(np.argsort(-size, axis=1), axis=1)
    kept = (rank < count) & (size > threshold)
    return prox.soft(x, np.where(kept, 0.0, threshold))
