"""Least squares on a support, and how every move of one column would change it."""

from __future__ import annotations

__all__ = ["Move", "SupportFit", "inverse_gram"]

from typing import NamedTuple

import numpy as np

from .weighted_columns import WeightedColumns

_NEGLIGIBLE = 1e-8  # squared norm of a column of unit norm that the others span
_AT_ONCE = 256  # columns whose exchanges are computed together
_UPDATES = 50  # updates of rank one before everything is computed afresh


class Move(NamedTuple):
    """One column leaves a support, one enters, or both.

    Parameters
    ----------
    gain : float
        By how much loss and costs fall.
    place : int or None
        Place in the support of what leaves.
    column : int or None
        What enters.
    """

    gain: float
    place: int | None
    column: int | None


class SupportFit:
    """Least squares on a support, and how the loss would change with every column.

    Parameters
    ----------
    columns : WeightedColumns
        Of unit norm, or zero.
    y : array of shape (n,)
        The target, treated as the columns are.
    support : array of int of shape (k,)
        Where to start; may be empty.

    Attributes
    ----------
    rows : array of shape (k, p)
        Inner products of the support with all columns.
    inverse : array of shape (k, k)
        The inverse of those within the support.
    correlations : array of shape (p,)
        Those of all columns with the residual.
    left : array of shape (p,)
        Squared norm of what every column adds to the span of the support.
    coefficients, loss
        Of the fit: array of shape (k,), and the squared norm of the residual.
    """

    def __init__(self, columns: WeightedColumns, y: np.ndarray, support: np.ndarray) -> None:
        self.columns, self.support = columns, np.array(support, dtype=int)
        self.square = float(y @ y)
        self.products = columns.correlate(y)
        self.rows = columns.correlate(columns.take(self.support)).T
        self.refit()

    def refit(self) -> None:
        """Compute everything from the products, free of what updates leave behind."""
        self.inverse = inverse_gram(self.rows[:, self.support])
        self.coefficients = self.inverse @ self.products[self.support]
        self.loss = self.square - self.coefficients @ self.products[self.support]
        self.correlations = self.products - self.coefficients @ self.rows
        self.left = 1 - np.einsum("kp,kp->p", self.inverse @ self.rows, self.rows)
        self.updates = 0

    @property
    def rounding(self) -> float:
        """What a gain must exceed to be more than rounding."""
        return 1e-10 * self.loss + 1e-14 * self.square

    def entries(self) -> np.ndarray:
        """Return by how much the loss falls when each column enters, of shape (p,)."""
        useful = self.left > _NEGLIGIBLE
        useful[self.support] = False
        return np.divide(
            self.correlations**2, self.left, out=np.zeros(len(self.left)), where=useful
        )

    def exits(self) -> np.ndarray:
        """Return by how much the loss rises when each of the support leaves, of shape (k,)."""
        return self.coefficients**2 / np.diag(self.inverse)

    def exchanges(self, columns: np.ndarray) -> np.ndarray:
        """Return by how much the loss falls when each of the support leaves for each column.

        Parameters
        ----------
        columns : array of int of shape (m,)
            What may enter.

        Returns
        -------
        array of shape (k, m)
            Gains.
        """
        shares = self.inverse @ self.rows[:, columns]
        worth = np.diag(self.inverse)[:, None]
        # Without column k the residual and what is left of every column gain their parts along
        # the direction that k alone spans.
        length = self.left[columns] + shares**2 / worth
        pull = self.correlations[columns] + shares * (self.coefficients[:, None] / worth)
        gain = np.divide(pull**2, length, out=np.zeros_like(pull), where=length > _NEGLIGIBLE)
        gain -= self.exits()[:, None]
        return gain

    def best_exchange(self, cost: np.ndarray) -> Move:
        """Return the exchange that lowers loss and costs the most.

        Parameters
        ----------
        cost : array of shape (p,)
            What each column costs while it is in the support.
        """
        best = Move(0.0, None, None)
        if not len(self.support):
            return best
        here = cost[self.support]
        # With column k the support and column j span no more than with both, so that no exchange
        # gains more than the entry of j alone: only the most promising columns need a look. What
        # the support all but spans may enter once the column that it resembles has left.
        spanned = self.left <= _NEGLIGIBLE
        promise = np.where(spanned, np.inf, self.entries() + here.max() - cost)
        promise[self.support] = 0
        order = np.argsort(-promise)[: np.count_nonzero(promise > 0)]
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE]
            if promise[some[0]] <= best.gain:
                break
            gain = self.exchanges(some) + here[:, None] - cost[some]
            highest = np.unravel_index(np.argmax(gain), gain.shape)
            if gain[highest] > best.gain:
                best = Move(float(gain[highest]), int(highest[0]), int(some[highest[1]]))
        return best

    def best_move(self, cost: np.ndarray) -> Move:
        """Return the exchange, entry or exit that lowers loss and costs the most."""
        best = self.best_exchange(cost)
        entry = np.where(self.left > _NEGLIGIBLE, self.entries() - cost, -np.inf)
        entry[self.support] = -np.inf
        entering = int(np.argmax(entry))
        if entry[entering] > best.gain:
            best = Move(float(entry[entering]), None, entering)
        exit = cost[self.support] - self.exits()
        if len(exit) and exit.max() > best.gain:
            best = Move(float(exit.max()), int(np.argmax(exit)), None)
        return best

    def make(self, move: Move) -> None:
        """Change the support, by updates of rank one."""
        if move.place is not None:
            self._remove(move.place)
        if move.column is not None:
            self._enter(move.place, move.column)
        elif move.place is not None:
            self._drop(move.place)
        self.updates += 1
        if self.updates == _UPDATES:
            self.refit()

    def _remove(self, place: int) -> None:
        leaving = self.inverse[place] / np.sqrt(self.inverse[place, place])
        self._update(leaving @ self.rows, leaving, leaving @ self.products[self.support], 1.0)
        self.inverse[place] = self.inverse[:, place] = 0  # but for rounding
        self.coefficients[place] = 0

    def _enter(self, place: int | None, column: int) -> None:
        if place is None:  # make room at the end
            place = len(self.support)
            self.support = np.append(self.support, column)
            self.rows = np.vstack([self.rows, np.zeros(self.rows.shape[1])])
            self.inverse = np.pad(self.inverse, (0, 1))
            self.coefficients = np.append(self.coefficients, 0.0)
        entering = -(self.inverse @ self.rows[:, column])
        entering[place] = 1
        self.support[place] = column
        self.rows[place] = self.columns.correlate(self.columns.take([column])[:, 0])
        length = np.sqrt(self.left[column])
        entering /= length
        along = float(self.correlations[column]) / length
        self._update(entering @ self.rows, entering, along, -1.0)

    def _drop(self, place: int) -> None:
        self.support = np.delete(self.support, place)
        self.rows = np.delete(self.rows, place, axis=0)
        self.inverse = np.delete(np.delete(self.inverse, place, axis=0), place, axis=1)
        self.coefficients = np.delete(self.coefficients, place)

    def _update(
        self, direction: np.ndarray, weights: np.ndarray, along: float, sign: float
    ) -> None:
        """Take a unit direction of the span out (`sign` 1) or in (-1).

        `direction` holds its products with all columns, `weights` what it is made of, `along` its
        product with the target.
        """
        self.inverse -= sign * np.outer(weights, weights)
        self.coefficients -= sign * along * weights
        self.correlations += sign * along * direction
        self.left += sign * direction**2
        self.loss += sign * along**2


def inverse_gram(gram: np.ndarray) -> np.ndarray:
    """Return the inverse of a Gram matrix of unit columns; duplicates share their coefficient."""
    return np.linalg.inv(gram + 1e-12 * np.eye(len(gram)))
