"""Orthogonal matching pursuit whose choice lowers a LASSO-type loss the most."""

from __future__ import annotations

__all__ = ["LossOMP"]

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import linprog

from ...core.card import Card, Catalogued
from ...core.errors import OptionError, nearest
from ...core.options import check_number
from ...solve.weighted_columns import WeightedColumns
from .columns import Columns, greedy_support
from .pursuit import GreedyRegressor, checked_count


class LossOMP(Catalogued, GreedyRegressor):
    """Greedy regression guided by the LASSO, the square-root LASSO or the LAD-LASSO.

    Each step adds the column whose single coefficient would lower the regularised loss
    most, then refits the data term alone on the chosen columns. With the L0 norm a step may
    also remove a column, where that lowers the regularised loss more. Columns have unit norm
    inside, so that `alpha` and `weights` act on coefficients of unit columns.

    Parameters
    ----------
    n_nonzero_coefs : int, optional
        How many columns at most; a tenth of them (one at least) by default, as in
        scikit-learn, and never more than samples.
    loss : {"lasso", "square-root", "absolute"}, default "lasso"
        ``||r||^2``, ``||r||_2`` (its best `alpha` does not depend on the noise) or
        ``||r||_1`` (not disturbed by gross errors in a few samples), plus the penalty.
    alpha : float, default 0.0
        Strength of the penalty, not negative; no column enters that gains less. Zero ranks
        by the loss alone.
    weights : array of shape (n_features,), optional
        Weight of each coefficient in the penalty, not negative: small for those believed in.
    norm : {"l1", "l0"}, default "l1"
        Whether the penalty is ``alpha sum w |z|`` or ``alpha sum w^2 [z != 0]``.
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
        If an option is out of range, weights have another length, or more columns are asked
        for than there are.

    References
    ----------
    Mohammad-Taheri and Brugiapaglia, The greedy side of the LASSO (2023), for the gains.
    """

    card = Card(
        name="loss-omp",
        title=(
            "The greedy side of the LASSO: New algorithms for weighted sparse recovery via "
            "loss function-based orthogonal matching pursuit"
        ),
        authors="Sina Mohammad-Taheri, Simone Brugiapaglia",
        year=2023,
        arxiv="2303.00844",
        summary="OMP that adds the column lowering a (square-root, LAD-)LASSO loss the most",
    )

    def __init__(
        self,
        n_nonzero_coefs: int | None = None,
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

    def _choose(self, columns: WeightedColumns, y: np.ndarray) -> tuple[Any, np.ndarray]:
        rows, available = columns.shape
        weights = self._checked_weights(available)
        count = min(checked_count(self.n_nonzero_coefs, available), rows)
        fitted = self._columns(columns, y)
        gain, loss = _GAINS[self.loss], _LOSSES[self.loss]
        if self.norm == "l1":
            cost = self.alpha * weights
            found = greedy_support(fitted, count, lambda now: gain(now, cost))
        else:
            cost, free = self.alpha * weights**2, np.zeros(available)
            found = greedy_support(
                fitted,
                count,
                lambda now: _counting_gain(gain(now, free), cost),
                removal=lambda now: _removal_gain(now, loss, cost),
            )
        return found.chosen, found.coefficients()

    def _columns(self, columns: WeightedColumns, y: np.ndarray) -> Columns:
        if self.loss != "absolute":
            return Columns(columns, y)
        # The rows hold the roots of the weights already, enough for squares.
        roots = columns.roots
        return _AbsoluteColumns(columns.dense() * roots[:, None], y * roots)

    def _checked_weights(self, columns: int) -> np.ndarray:
        """Return the weights, or raise for the first option that is out of range."""
        for name, value, known in (("loss", self.loss, _GAINS), ("norm", self.norm, ("l1", "l0"))):
            if value not in known:
                raise OptionError(f"there is no {name} {value!r}; {nearest(str(value), known)}")
        check_number("alpha", self.alpha)
        weights = np.ones(columns) if self.weights is None else np.asarray(self.weights, float)
        if weights.shape != (columns,):
            raise OptionError(f"weights has shape {weights.shape}, X has {columns} features")
        if not np.all((weights >= 0) & (weights < np.inf)):
            worst = int(np.argmin((weights >= 0) & (weights < np.inf)))
            raise OptionError(
                f"weights must be finite and not negative, got {weights[worst]} at {worst}"
            )
        return weights


def _counting_gain(fall: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Return the gain under the L0 norm: the whole fall of the loss less the cost of entry."""
    return np.maximum(fall - cost, 0)


def _removal_gain(
    columns: Columns, loss: Callable[[np.ndarray], np.ndarray], cost: np.ndarray
) -> np.ndarray:
    """Return what each chosen column saves if it leaves while the others stay as they are.

    With least squares the residual is orthogonal to column j, so that for the lasso this is the
    cost less the squared coefficient.
    """
    parts = columns.take(columns.chosen) * columns.coefficients()
    rest = columns.residual[:, None]
    saved = cost[columns.chosen]
    gain = saved - (loss(rest + parts) - loss(rest))
    # What rounding alone makes worth removing would enter again.
    return np.where(gain > 1e-10 * saved, gain, 0.0)


def _lasso_gain(columns: Columns, cost: np.ndarray) -> np.ndarray:
    """Return ``(|c| - cost / 2)^2`` for the correlation c, or 0."""
    return np.maximum(np.abs(columns.correlate()) - cost / 2, 0) ** 2


def _square_root_gain(columns: Columns, cost: np.ndarray) -> np.ndarray:
    """Return ``||r|| - cost |c| - sqrt((1 - cost^2) (||r||^2 - c^2))``, or 0."""
    norm = np.linalg.norm(columns.residual)
    size = np.minimum(np.abs(columns.correlate()), norm)
    outside = np.sqrt(np.maximum(1 - cost**2, 0)) * np.sqrt(norm**2 - size**2)
    return np.where(size > cost * norm, norm - cost * size - outside, 0)


def _absolute_gain(columns: Columns, cost: np.ndarray) -> np.ndarray:
    """Return the gain of the best single coefficient: a weighted median for each column."""
    X, residual = columns.take(slice(None)), columns.residual
    rows, size = X.shape
    slopes = np.vstack([np.abs(X), cost])
    kinks = np.zeros((rows + 1, size))
    np.divide(residual[:, None], X, out=kinks[:rows], where=X != 0)
    order = np.argsort(kinks, axis=0)
    passed = np.cumsum(np.take_along_axis(slopes, order, axis=0), axis=0)
    middle = np.argmax(passed >= passed[-1] / 2, axis=0)
    best = np.take_along_axis(kinks, order, axis=0)[middle, np.arange(size)]
    reached = np.abs(residual[:, None] - X * best).sum(axis=0) + cost * np.abs(best)
    return np.maximum(np.abs(residual).sum() - reached, 0)


# What the best coefficient of one column gains under the L1 norm.
_GAINS = {"lasso": _lasso_gain, "square-root": _square_root_gain, "absolute": _absolute_gain}
# The loss of every column of residuals.
_LOSSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "lasso": lambda residuals: np.sum(residuals**2, axis=0),
    "square-root": lambda residuals: np.linalg.norm(residuals, axis=0),
    "absolute": lambda residuals: np.abs(residuals).sum(axis=0),
}


class _AbsoluteColumns(Columns):
    """Chosen columns fitted by least absolute deviations, as a linear programme."""

    def __init__(self, X: np.ndarray, y: np.ndarray) -> None:
        super().__init__(X, y)
        self._fitted = np.zeros(0)

    def add(self, j: int) -> bool:
        """Add column `j` and refit."""
        self.chosen.append(j)
        self._refit()
        return True

    def remove(self, j: int) -> None:
        """Remove the chosen column `j` and refit."""
        self.chosen.remove(j)
        self._refit()

    def _refit(self) -> None:
        chosen = self.take(self.chosen)
        rows, size = chosen.shape
        # Residual = above - below, both non-negative; the sum of both is minimised.
        goal = np.concatenate([np.zeros(size), np.ones(2 * rows)])
        equal = np.hstack([chosen, np.eye(rows), -np.eye(rows)])
        bounds = [(None, None)] * size + [(0, None)] * (2 * rows)
        self._fitted = linprog(goal, A_eq=equal, b_eq=self.target, bounds=bounds).x[:size]
        self.residual = self.target - chosen @ self._fitted

    def coefficients(self) -> np.ndarray:
        """Return the coefficients of the last refit."""
        return self._fitted
