"""The best subset of a given size, by hard thresholding and exchanges."""

from __future__ import annotations

__all__ = ["BestSubset", "exchange_search"]

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
    at once as lower the loss of the least squares refit.

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
    for _ in range(max_exchanges):
        gain = (X.T @ residual) ** 2
        gain[support] = -np.inf
        count = min(len(support), X.shape[1] - len(support))
        entering = np.argpartition(-gain, max(count - 1, 0))[:count]
        entering = entering[np.argsort(-gain[entering])]
        leaving = np.argsort(cost)[:count]
        while count > 0:
            trial = support.copy()
            trial[leaving[:count]] = entering[:count]
            solution = _refit(X, y, trial)
            lower = solution[2] @ solution[2]
            if lower < loss * (1 - 1e-10):
                support, (coefficients, cost, residual), loss = trial, solution, lower
                break
            count //= 2
        else:
            break
    return support, coefficients


def _refit(
    X: np.ndarray, y: np.ndarray, support: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least squares fit on a support, what each column is worth, the residual."""
    chosen = X[:, support]
    gram = chosen.T @ chosen
    gram[np.diag_indices_from(gram)] += 1e-12  # duplicate columns share their coefficient
    inverse = np.linalg.inv(gram)
    coefficients = inverse @ (chosen.T @ y)
    return coefficients, coefficients**2 / np.diag(inverse), y - chosen @ coefficients


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
