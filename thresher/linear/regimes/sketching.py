"""Least squares on a random sketch of the rows, with control of every coefficient."""

from __future__ import annotations

__all__ = ["SketchedRegression", "count_sketch", "gaussian_sketch", "hadamard_sketch"]

from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from ...core.card import Card, Catalogued
from ...core.errors import OptionError, nearest
from ...core.options import check_whole
from ...solve.centring import Centring
from ..predictor import LinearRegressor


def hadamard_sketch(A: np.ndarray, rows: int, rng: np.random.RandomState) -> np.ndarray:
    """Return a subsampled randomised Hadamard transform: dense, in ``n log n`` per column.

    Parameters
    ----------
    A : array of shape (n, d)
        What is sketched.
    rows : int
        Rows of the sketch; at most n rounded up to a power of two.
    rng : RandomState
        Signs and choice of rows.

    Returns
    -------
    array of shape (rows, d)
        The sketch ``S A`` with ``E[S^T S] = I``.
    """
    size = 1 << max(len(A) - 1, 0).bit_length()
    padded = np.zeros((size, A.shape[1]))
    padded[: len(A)] = A * rng.choice([-1.0, 1.0], len(A))[:, None]
    half = 1
    while half < size:
        pairs = padded.reshape(-1, 2, half, A.shape[1])
        padded = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1)
        half *= 2
    chosen = rng.choice(size, min(rows, size), replace=False)
    return padded.reshape(size, -1)[chosen] / np.sqrt(len(chosen))


def gaussian_sketch(A: np.ndarray, rows: int, rng: np.random.RandomState) -> np.ndarray:
    """Return a dense Gaussian sketch, in ``rows n`` per column.

    Parameters
    ----------
    A : array of shape (n, d)
        What is sketched.
    rows : int
        Rows of the sketch.
    rng : RandomState
        Entries of the sketching matrix.

    Returns
    -------
    array of shape (rows, d)
        The sketch ``S A`` with ``E[S^T S] = I``.
    """
    return rng.standard_normal((rows, len(A))) @ A / np.sqrt(rows)


def count_sketch(A: np.ndarray, rows: int, rng: np.random.RandomState) -> np.ndarray:
    """Return a sparse sketch, every row of `A` added to one row with a random sign.

    Parameters
    ----------
    A : array of shape (n, d)
        What is sketched.
    rows : int
        Rows of the sketch.
    rng : RandomState
        Destinations and signs.

    Returns
    -------
    array of shape (rows, d)
        The sketch ``S A`` with ``E[S^T S] = I``.
    """
    sketch = np.zeros((rows, A.shape[1]))
    np.add.at(sketch, rng.randint(rows, size=len(A)), A * rng.choice([-1.0, 1.0], len(A))[:, None])
    return sketch


_SKETCHES = {"hadamard": hadamard_sketch, "gaussian": gaussian_sketch, "count": count_sketch}


class SketchedRegression(Catalogued, LinearRegressor):
    """Ordinary least squares of a sketch of the samples.

    With a dense sketch the error of every single coefficient is about ``1 / sqrt(d)`` of the
    error of all of them; a sparse sketch can put all of it into one.

    Parameters
    ----------
    n_rows : int, optional
        Rows of the sketch; by default ``20 n_features``. With fewer samples than that
        nothing is sketched.
    sketch : {"hadamard", "gaussian", "count"}, default "hadamard"
        The first two are dense.
    fit_intercept : bool, default True
        Whether to fit a constant.
    random_state : int, RandomState or None, default None
        The sketch.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Coefficients.
    intercept_ : float
        Constant.
    n_rows_ : int
        Rows that were solved.

    Raises
    ------
    OptionError
        If `sketch` is unknown, or `n_rows` not a whole number of at least the number of
        features.

    References
    ----------
    Song, Ye, Yin and Zhang, A nearly-optimal bound for fast regression with l-infinity
    guarantee (ICML 2023), arXiv:2302.00248, for the need of dense sketches and their bound.

    Price, Song and Woodruff, Fast regression with an l-infinity guarantee (2017), for the
    Hadamard transform, and for count sketches that have no such bound.
    """

    card = Card(
        name="sketched-regression",
        title=r"A Nearly-Optimal Bound for Fast Regression with ell_infty Guarantee",
        authors="Zhao Song, Mingquan Ye, Junze Yin, Lichen Zhang",
        year=2023,
        arxiv="2302.00248",
        summary="least squares of a dense sketch, whose every coefficient is near the optimum",
    )

    def __init__(
        self,
        n_rows: int | None = None,
        *,
        sketch: str = "hadamard",
        fit_intercept: bool = True,
        random_state: Any = None,
    ) -> None:
        self.n_rows = n_rows
        self.sketch = sketch
        self.fit_intercept = fit_intercept
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> SketchedRegression:
        """Sketch the samples and solve.

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
        if self.sketch not in _SKETCHES:
            raise OptionError(f"no sketch {self.sketch!r}; {nearest(self.sketch, _SKETCHES)}")
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        rows = 20 * X.shape[1] if self.n_rows is None else self.n_rows
        check_whole("n_rows", rows)
        if rows < X.shape[1]:
            raise OptionError(f"n_rows {rows} is below the number of features, {X.shape[1]}")
        centring = Centring.of(X, y, self.fit_intercept)
        both = np.column_stack([centring.columns(X), y - centring.offset])
        if rows < len(both):
            both = _SKETCHES[self.sketch](both, rows, check_random_state(self.random_state))
        self.n_rows_ = len(both)
        self.coef_ = np.linalg.lstsq(both[:, :-1], both[:, -1], rcond=None)[0]
        self.intercept_ = float(centring.intercept(self.coef_))
        return self
