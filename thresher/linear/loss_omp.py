"""Orthogonal matching pursuit whose choice lowers a LASSO-type loss the most."""

from __future__ import annotations

__all__ = ["LossOMP"]

from typing import Any

import numpy as np
from scipy.optimize import linprog

from ..core.card import Card, Catalogued
from ..core.errors import OptionError, nearest
from .greedy import Columns, greedy_support
from .pursuit import GreedyRegressor


class LossOMP(Catalogued, GreedyRegressor):
    """Greedy regression guided by the LASSO, the square-root LASSO or the LAD-LASSO.

    Each step adds the column whose single coefficient would lower the regularised loss
    most, then refits the data term alone on the chosen columns. Columns have unit norm
    inside, so that `alpha` and `weights` act on coefficients of unit columns.

    Parameters
    ----------
    n_nonzero_coefs : int, default 10
        How many columns at most, and never more than there are.
    loss : {"lasso", "square-root", "absolute"}, default "lasso"
        ``||r||^2``, ``||r||_2`` (its best `alpha` does not depend on the noise) or
        ``||r||_1`` (not disturbed by gross errors in a few samples), plus the penalty.
    alpha : float, default 0.0
        Strength of the penalty; no column enters that gains less. Zero ranks by the loss
        alone.
    weights : array of shape (n_features,), optional
        Weight of each coefficient in the penalty: small for those believed in.
    norm : {"l1", "l0"}, default "l1"
        Whether the penalty is ``alpha sum w |z|`` or ``alpha^2 sum w^2 [z != 0]``
        ("lasso" only for "l0").
    fit_intercept : bool, default True
        Whether to fit a constant (the mean, also for the absolute loss).

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Coefficients.
    intercept_ : float
        Constant.
    support_ : array of int
        Chosen columns, in the order of choice.
    n_iter_ : int
        How many were chosen, one at least.

    Raises
    ------
    OptionError
        If an option is out of range, or weights have another length.
    """

    card = Card(
        name="loss-omp",
        title=(
            "The greedy side of the LASSO: New algorithms for weighted sparse recovery via "
            "loss function-based orthogonal matching pursuit"
        ),
        authors="Mohammad-Taheri, Brugiapaglia",
        year=2023,
        arxiv="2303.00844",
        summary="OMP that adds the column lowering a (square-root, LAD-)LASSO loss the most",
    )

    def __init__(
        self,
        n_nonzero_coefs: int = 10,
        *,
        loss: str = "lasso",
        alpha: float = 0.0,
        weights: Any = None,
        norm: str = "l1",
        fit_intercept: bool = True,
    ) -> None:
        self.n_nonzero_coefs = n_nonzero_coefs
        self.loss = loss
        self.alpha = alpha
        self.weights = weights
        self.norm = norm
        self.fit_intercept = fit_intercept

    def _select(self, X: np.ndarray, y: np.ndarray) -> Columns:
        rules = {"lasso": _lasso_gain, "square-root": _square_root_gain, "absolute": _absolute_gain}
        if self.loss not in rules:
            raise OptionError(f"there is no loss {self.loss!r}; {nearest(self.loss, rules)}")
        if self.norm not in ("l1", "l0") or (self.norm == "l0" and self.loss != "lasso"):
            raise OptionError(f"norm {self.norm!r} does not go with loss {self.loss!r}; use 'l1'")
        weights = np.ones(X.shape[1]) if self.weights is None else np.asarray(self.weights, float)
        if weights.shape != (X.shape[1],):
            raise OptionError(f"weights has shape {weights.shape}, X has {X.shape[1]} features")
        cost = self.alpha * weights
        rule = _counting_gain if self.norm == "l0" else rules[self.loss]
        columns = (_AbsoluteColumns if self.loss == "absolute" else Columns)(X, y)
        count = min(self.n_nonzero_coefs, *X.shape)
        return greedy_support(columns, count, lambda residual: rule(X, residual, cost))


def _lasso_gain(X: np.ndarray, residual: np.ndarray, cost: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(X.T @ residual) - cost / 2, 0) ** 2


def _counting_gain(X: np.ndarray, residual: np.ndarray, cost: np.ndarray) -> np.ndarray:
    return np.maximum((X.T @ residual) ** 2 - cost**2, 0)


def _square_root_gain(X: np.ndarray, residual: np.ndarray, cost: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(residual)
    size = np.minimum(np.abs(X.T @ residual), norm)
    outside = np.sqrt(np.maximum(1 - cost**2, 0)) * np.sqrt(norm**2 - size**2)
    return np.where(size > cost * norm, norm - cost * size - outside, 0)


def _absolute_gain(X: np.ndarray, residual: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Return the gain of the best single coefficient: a weighted median for each column."""
    rows, columns = X.shape
    slopes = np.vstack([np.abs(X), cost])
    kinks = np.zeros((rows + 1, columns))
    np.divide(residual[:, None], X, out=kinks[:rows], where=X != 0)
    order = np.argsort(kinks, axis=0)
    passed = np.cumsum(np.take_along_axis(slopes, order, axis=0), axis=0)
    middle = np.argmax(passed >= passed[-1] / 2, axis=0)
    best = np.take_along_axis(kinks, order, axis=0)[middle, np.arange(columns)]
    reached = np.abs(residual[:, None] - X * best).sum(axis=0) + cost * np.abs(best)
    return np.maximum(np.abs(residual).sum() - reached, 0)


class _AbsoluteColumns(Columns):
    """Chosen columns fitted by least absolute deviations, as a linear programme."""

    def __init__(self, X: np.ndarray, y: np.ndarray) -> None:
        super().__init__(X, y)
        self._target = np.array(y, dtype=float)
        self._fitted = np.zeros(0)

    def add(self, j: int) -> bool:
        """Add column `j` and refit."""
        self.chosen.append(j)
        chosen = self.X[:, self.chosen]
        rows, size = chosen.shape
        # Residual = above - below, both non-negative; the sum of both is minimised.
        goal = np.concatenate([np.zeros(size), np.ones(2 * rows)])
        equal = np.hstack([chosen, np.eye(rows), -np.eye(rows)])
        bounds = [(None, None)] * size + [(0, None)] * (2 * rows)
        self._fitted = linprog(goal, A_eq=equal, b_eq=self._target, bounds=bounds).x[:size]
        self.residual = self._target - chosen @ self._fitted
        return True

    def coefficients(self) -> np.ndarray:
        """Return the coefficients of the last refit."""
        return self._fitted
