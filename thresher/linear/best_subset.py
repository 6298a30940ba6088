"""The best subset of a given size, by hard thresholding and exchanges."""

from __future__ import annotations

__all__ = ["BestSubset", "exchange_search"]

from collections.abc import Iterator

import numpy as np

from ..core.errors import OptionError
from ..core.top_k import top_k_mask
from .greedy import Columns
from .pursuit import GreedyRegressor


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
        Columns of unit norm.
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

    References
    ----------
    Zhu, Wen, Zhu, Zhang and Wang, A polynomial algorithm for best-subset selection problem
    (2020), for exchanges ranked by what removal costs and entry gains.
    """
    support = np.array(support, dtype=int)
    coefficients, cost, residual = _refit(X, y, support)
    loss = residual @ residual
    products: dict[int, np.ndarray] = {}
    for _ in range(max_exchanges):
        correlations = X.T @ residual
        for trial in _exchanges(X, support, coefficients, cost, correlations, products):
            solution = _refit(X, y, trial)
            lower = solution[2] @ solution[2]
            if lower < loss * (1 - 1e-10):
                support, (coefficients, cost, residual), loss = trial, solution, lower
                break
        else:
            break
    return support, coefficients


def _exchanges(
    X: np.ndarray,
    support: np.ndarray,
    coefficients: np.ndarray,
    cost: np.ndarray,
    correlations: np.ndarray,
    products: dict[int, np.ndarray],
) -> Iterator[np.ndarray]:
    """Yield supports to try: many columns exchanged, then fewer, then the best single exchange."""
    gain = correlations**2
    gain[support] = -np.inf
    count = min(len(support), X.shape[1] - len(support))
    entering = np.argpartition(-gain, max(count - 1, 0))[:count]
    entering = entering[np.argsort(-gain[entering])]
    leaving = np.argsort(cost)[:count]
    while count > 0:
        trial = support.copy()
        trial[leaving[:count]] = entering[:count]
        yield trial
        count //= 2
    if len(entering):
        yield _best_exchange(X, support, coefficients, correlations, products)


def _best_exchange(
    X: np.ndarray,
    support: np.ndarray,
    coefficients: np.ndarray,
    correlations: np.ndarray,
    products: dict[int, np.ndarray],
) -> np.ndarray:
    """Return the support after the exchange of two columns that lowers the loss most.

    `products` keeps the inner products of all columns with those that were in a support.
    """
    missing = [int(j) for j in support if int(j) not in products]
    if missing:
        products.update(zip(missing, X[:, missing].T @ X, strict=True))
    rows = np.array([products[int(j)] for j in support])  # (k, p)
    inverse = _inverse_gram(rows[:, support])
    shares = inverse @ rows  # coefficients of every column on the support
    left = 1 - np.einsum("kp,kp->p", shares, rows)  # of every column, beside the support
    best, place, column = 0.0, 0, int(support[0])
    for k, (share, worth) in enumerate(zip(shares, np.diag(inverse), strict=True)):
        # Without column k the residual and what is left of every column gain their parts along
        # the direction that k alone spans.
        length = left + share**2 / worth
        pull = correlations + share * (coefficients[k] / worth)
        gain = np.divide(pull**2, length, out=np.zeros_like(pull), where=length > 1e-8)
        gain[support] = 0
        gain -= coefficients[k] ** 2 / worth
        entering = int(np.argmax(gain))
        if gain[entering] > best:
            best, place, column = float(gain[entering]), k, entering
    exchanged = support.copy()
    exchanged[place] = column
    return exchanged


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

    Starts from hard thresholding pursuit and exchanges columns until no exchange helps.
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
        support = _pursue(X, y, min(self.k, len(y)))
        support, _ = exchange_search(X, y, support, self.max_exchanges)
        columns = Columns(X, y)
        for j in support:
            columns.add(int(j))
        return columns


def _pursue(X: np.ndarray, y: np.ndarray, k: int, rounds: int = 20) -> np.ndarray:
    """Hard thresholding pursuit from zero: gradient step, top k, least squares, repeated."""
    support = np.flatnonzero(top_k_mask(np.abs(X.T @ y), k))
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
