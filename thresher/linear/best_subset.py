"""The best subset of a given size, by hard thresholding and exchanges."""

from __future__ import annotations

__all__ = ["BestSubset", "exchange_search"]

import numpy as np

from ..core.errors import OptionError
from ..core.top_k import top_k_mask
from .greedy import Columns
from .pursuit import GreedyRegressor

_NEGLIGIBLE = 1e-8  # squared norm of a column of unit norm that the others span
_AT_ONCE = 256  # columns whose exchanges are computed together
_UPDATES = 50  # updates of rank one before everything is computed afresh


def exchange_search(
    X: np.ndarray, y: np.ndarray, support: np.ndarray, max_exchanges: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Exchange columns of a support for better ones until no exchange lowers the loss.

    The columns whose removal costs least leave for those whose entry gains most, as many
    at once as lower the loss of the least squares refit. Where none do, the best of all
    exchanges of one column for another is made, its gain computed exactly: a column outside
    may only be worth it once one that it resembles has left.

    Parameters
    ----------
    X : array of shape (n, p)
        Columns of unit norm, or zero.
    y : array of shape (n,)
        Target.
    support : array of int of shape (k,)
        Where to start.
    max_exchanges : int, default 1000
        Most exchanges made.

    Returns
    -------
    support : array of int of shape (k,)
        The columns at the end.
    coefficients : array of shape (k,)
        Their least squares coefficients.

    Notes
    -----
    Keeps the inner products of the support with all columns, ``k x p`` numbers.

    References
    ----------
    Zhu, Wen, Zhu, Zhang and Wang, A polynomial algorithm for best-subset selection problem
    (2020), for exchanges ranked by what removal costs and entry gains.
    """
    support, left = _exchange_many(X, y, np.array(support, dtype=int), max_exchanges)
    fit = _SupportFit(X, y, support)
    while left and fit.exchange_one():
        left -= 1
    return fit.support, fit.coefficients


def _exchange_many(
    X: np.ndarray, y: np.ndarray, support: np.ndarray, most: int
) -> tuple[np.ndarray, int]:
    """Exchange many columns at once, as often as that helps; return also what is left of `most`."""
    count = min(len(support), X.shape[1] - len(support))
    _, cost, residual = _refit(X, y, support)
    for left in range(most, 0, -1):
        gain = (X.T @ residual) ** 2
        gain[support] = -np.inf
        entering = np.argpartition(-gain, max(count - 1, 0))[:count]
        entering = entering[np.argsort(-gain[entering])]
        leaving = np.argsort(cost)[:count]
        size, loss = count, residual @ residual
        while size:
            trial = support.copy()
            trial[leaving[:size]] = entering[:size]
            solution = _refit(X, y, trial)
            if solution[2] @ solution[2] < loss * (1 - 1e-10):
                break
            size //= 2
        else:
            return support, left
        support, (_, cost, residual) = trial, solution
    return support, 0


class _SupportFit:
    """Least squares on a support, and how the loss would change with every column.

    ``rows`` holds the inner products of the support with all columns, ``inverse`` the inverse of
    those within the support, ``correlations`` those of all columns with the residual, and
    ``left`` the squared norm of what every column adds to the span of the support.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, support: np.ndarray) -> None:
        self.X, self.support = X, support
        self.square = float(y @ y)
        self.products = X.T @ y
        self.rows = X.T[support] @ X
        self.refit()

    def refit(self) -> None:
        """Compute everything from the products, free of what updates leave behind."""
        self.inverse = _inverse_gram(self.rows[:, self.support])
        self.coefficients = self.inverse @ self.products[self.support]
        self.loss = self.square - self.coefficients @ self.products[self.support]
        self.correlations = self.products - self.coefficients @ self.rows
        self.left = 1 - np.einsum("kp,kp->p", self.inverse @ self.rows, self.rows)
        self.updates = 0

    def exchange_one(self) -> bool:
        """Make the best exchange of one column for another, if it lowers the loss."""
        # With column k the support and column j span no more than with both, so that no exchange
        # gains more than the entry of j alone: only the most promising columns need a look.
        promise = np.divide(
            self.correlations**2,
            self.left,
            out=np.full(len(self.left), np.inf),
            where=self.left > _NEGLIGIBLE,
        )
        promise[self.support] = 0
        order = np.argsort(-promise)[: np.count_nonzero(promise)]
        best, place, column = 0.0, 0, 0
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE]
            if promise[some[0]] <= best:
                break
            gain = self.gains(some)
            highest = np.unravel_index(np.argmax(gain), gain.shape)
            if gain[highest] > best:
                best, place, column = gain[highest], int(highest[0]), int(some[highest[1]])
        if best <= 1e-10 * self.loss + 1e-14 * self.square:  # no more than rounding
            return False
        self.exchange(place, column)
        return True

    def gains(self, columns: np.ndarray) -> np.ndarray:
        """By how much the loss falls when each of the support leaves for each of `columns`."""
        shares = self.inverse @ self.rows[:, columns]
        worth = np.diag(self.inverse)[:, None]
        # Without column k the residual and what is left of every column gain their parts along
        # the direction that k alone spans.
        length = self.left[columns] + shares**2 / worth
        pull = self.correlations[columns] + shares * (self.coefficients[:, None] / worth)
        gain = np.divide(pull**2, length, out=np.zeros_like(pull), where=length > _NEGLIGIBLE)
        gain -= self.coefficients[:, None] ** 2 / worth
        return gain

    def exchange(self, place: int, column: int) -> None:
        """Put a column in the place of another, by updates of rank one."""
        leaving = self.inverse[place] / np.sqrt(self.inverse[place, place])
        self.update(leaving @ self.rows, leaving, leaving @ self.products[self.support], 1.0)
        self.inverse[place] = self.inverse[:, place] = 0  # but for rounding
        self.coefficients[place] = 0
        row = self.X[:, column] @ self.X
        length = np.sqrt(self.left[column])
        entering = -(self.inverse @ self.rows[:, column])
        entering[place] = 1
        self.support[place], self.rows[place] = column, row
        entering /= length
        self.update(entering @ self.rows, entering, float(self.correlations[column]) / length, -1.0)
        self.updates += 1
        if self.updates == _UPDATES:
            self.refit()

    def update(self, direction: np.ndarray, weights: np.ndarray, along: float, sign: float) -> None:
        """Take a unit direction of the span out (`sign` 1) or in (-1).

        `direction` holds its products with all columns, `weights` what it is made of, `along` its
        product with the target.
        """
        self.inverse -= sign * np.outer(weights, weights)
        self.coefficients -= sign * along * weights
        self.correlations += sign * along * direction
        self.left += sign * direction**2
        self.loss += sign * along**2


def _refit(
    X: np.ndarray, y: np.ndarray, support: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least squares fit on a support, what each column is worth, the residual."""
    chosen = X[:, support]
    inverse = _inverse_gram(chosen.T @ chosen)
    coefficients = inverse @ (chosen.T @ y)
    return coefficients, coefficients**2 / np.diag(inverse), y - chosen @ coefficients


def _inverse_gram(gram: np.ndarray) -> np.ndarray:
    # Duplicate columns share their coefficient.
    return np.linalg.inv(gram + 1e-12 * np.eye(len(gram)))


class BestSubset(GreedyRegressor):
    """Least squares on the best `k` columns.

    Starts from the columns most correlated with the target and from hard thresholding pursuit,
    exchanges columns until no exchange helps, and keeps the better of both.
    The problem is NP-hard: what is found is a local optimum, though the true subset in the
    regimes where it can be recovered.

    Parameters
    ----------
    k : int, default 1
        How many columns.
    fit_intercept : bool, default True
        Whether to fit a constant.
    max_exchanges : int, default 1000
        Most exchanges made.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Coefficients, `k` of them not zero (fewer if the columns span the target earlier).
    intercept_ : float
        Constant.
    support_ : array of int
        Chosen columns.
    n_iter_ : int
        How many were chosen, one at least.

    Raises
    ------
    OptionError
        If `k` exceeds the number of columns.

    References
    ----------
    Foucart, Hard thresholding pursuit: an algorithm for compressive sensing (2011); Zhu et
    al., A polynomial algorithm for best-subset selection problem (2020).
    """

    def __init__(
        self, k: int = 1, *, fit_intercept: bool = True, max_exchanges: int = 1000
    ) -> None:
        self.k = k
        self.fit_intercept = fit_intercept
        self.max_exchanges = max_exchanges

    def _select(self, X: np.ndarray, y: np.ndarray) -> Columns:
        if not 1 <= self.k <= X.shape[1]:
            raise OptionError(
                f"cannot choose {self.k} of {X.shape[1]} columns; ask for 1 to {X.shape[1]}"
            )
        k = min(self.k, len(y))
        starts = [_most_correlated(X, y, k), _pursue(X, y, k)]
        found = [exchange_search(X, y, start, self.max_exchanges) for start in starts]
        support, _ = min(found, key=lambda fit: np.linalg.norm(y - X[:, fit[0]] @ fit[1]))
        columns = Columns(X, y)
        for j in support:
            columns.add(int(j))
        return columns


def _most_correlated(X: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    return np.flatnonzero(top_k_mask(np.abs(X.T @ y), k))


def _pursue(X: np.ndarray, y: np.ndarray, k: int, rounds: int = 20) -> np.ndarray:
    """Hard thresholding pursuit from zero: gradient step, top k, least squares, repeated."""
    support = _most_correlated(X, y, k)
    for _ in range(rounds):
        coefficients, _, residual = _refit(X, y, support)
        step = X.T @ residual
        step[support] += coefficients
        following = np.flatnonzero(top_k_mask(np.abs(step), k))
        if np.array_equal(following, support):
            break
        if np.sum(_refit(X, y, following)[2] ** 2) >= residual @ residual:
            break
        support = following
    return support
