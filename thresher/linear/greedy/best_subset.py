"""The best subset of a given size, by hard thresholding and exchanges."""

from __future__ import annotations

__all__ = ["BestSubset", "exchange_search"]

from itertools import combinations
from math import comb

import numpy as np

from ...core.options import check_count, check_whole
from ...core.top_k import top_k_mask
from ...solve.support_fit import SupportFit, inverse_gram
from ...solve.weighted_columns import WeightedColumns
from .columns import Columns
from .pursuit import GreedyRegressor

_ENUMERATED = 1000  # most subsets that are all tried


def exchange_search(
    columns: WeightedColumns, y: np.ndarray, support: np.ndarray, max_exchanges: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Exchange columns of a support for better ones until no exchange lowers the loss.

    The columns whose removal costs least leave for those whose entry gains most, as many
    at once as lower the loss of the least squares refit. Where none do, the best of all
    exchanges of one column for another is made, its gain computed exactly: a column outside
    may only be worth it once one that it resembles has left.

    Parameters
    ----------
    columns : WeightedColumns
        Of unit norm, or zero.
    y : array of shape (n,)
        The target, treated as the columns are.
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
    support, left = _exchange_many(columns, y, np.array(support, dtype=int), max_exchanges)
    fit = SupportFit(columns, y, support)
    free = np.zeros(columns.shape[1])
    for _ in range(left):
        move = fit.best_exchange(free)
        if move.gain <= fit.rounding:
            break
        fit.make(move)
    return fit.support, fit.coefficients


def _exchange_many(
    columns: WeightedColumns, y: np.ndarray, support: np.ndarray, most: int
) -> tuple[np.ndarray, int]:
    """Exchange many columns at once, as often as that helps; return also what is left of `most`."""
    count = min(len(support), columns.shape[1] - len(support))
    _, cost, residual = _refit(columns, y, support)
    for left in range(most, 0, -1):
        gain = columns.correlate(residual) ** 2
        gain[support] = -np.inf
        entering = np.argpartition(-gain, max(count - 1, 0))[:count]
        entering = entering[np.argsort(-gain[entering])]
        leaving = np.argsort(cost)[:count]
        size, loss = count, residual @ residual
        while size:
            trial = support.copy()
            trial[leaving[:size]] = entering[:size]
            solution = _refit(columns, y, trial)
            if solution[2] @ solution[2] < loss * (1 - 1e-10):
                break
            size //= 2
        else:
            return support, left
        support, (_, cost, residual) = trial, solution
    return support, 0


def _refit(
    columns: WeightedColumns, y: np.ndarray, support: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least squares fit on a support, what each column is worth, the residual."""
    chosen = columns.take(support)
    inverse = inverse_gram(chosen.T @ chosen)
    coefficients = inverse @ (chosen.T @ y)
    return coefficients, coefficients**2 / np.diag(inverse), y - chosen @ coefficients


class BestSubset(GreedyRegressor):
    """Least squares on the best `k` columns.

    Where there are at most a thousand subsets of the size, all are tried: with up to 12 columns
    the best is found for sure. Otherwise starts from the columns most correlated with the target
    and from hard thresholding pursuit, exchanges columns until no exchange helps, and keeps the
    better of both. The problem is NP-hard: what is found is a local optimum, though the true
    subset in the regimes where it can be recovered.

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

    def _choose(self, columns: WeightedColumns, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_count("k", self.k, columns.shape[1])
        check_whole("max_exchanges", self.max_exchanges, least=0)
        k = min(self.k, len(y))
        if comb(columns.shape[1], k) <= _ENUMERATED:
            support = _best_of_all(columns, y, k)
        else:
            starts = [_most_correlated(columns, y, k), _pursue(columns, y, k)]
            found = [exchange_search(columns, y, start, self.max_exchanges) for start in starts]
            support, _ = min(
                found, key=lambda fit: np.linalg.norm(y - columns.take(fit[0]) @ fit[1])
            )
        basis = Columns(columns.take(support), y)
        kept = [j for place, j in enumerate(support) if basis.add(place)]
        return np.array(kept, dtype=int), basis.coefficients()


def _best_of_all(columns: WeightedColumns, y: np.ndarray, k: int) -> np.ndarray:
    """Return the best of all subsets of a size."""
    basis, triangle = np.linalg.qr(columns.dense())
    target = basis.T @ y  # what lies outside the span of all columns no subset explains

    def unexplained(support: tuple[int, ...]) -> float:
        chosen = triangle[:, support]
        residual = target - chosen @ np.linalg.lstsq(chosen, target, rcond=None)[0]
        return float(residual @ residual)

    return np.array(min(combinations(range(columns.shape[1]), k), key=unexplained))


def _most_correlated(columns: WeightedColumns, y: np.ndarray, k: int) -> np.ndarray:
    return np.flatnonzero(top_k_mask(np.abs(columns.correlate(y)), k))


def _pursue(columns: WeightedColumns, y: np.ndarray, k: int, rounds: int = 20) -> np.ndarray:
    """Hard thresholding pursuit from zero: gradient step, top k, least squares, repeated."""
    support = _most_correlated(columns, y, k)
    for _ in range(rounds):
        coefficients, _, residual = _refit(columns, y, support)
        step = columns.correlate(residual)
        step[support] += coefficients
        following = np.flatnonzero(top_k_mask(np.abs(step), k))
        if np.array_equal(following, support):
            break
        if np.sum(_refit(columns, y, following)[2] ** 2) >= residual @ residual:
            break
        support = following
    return support
