"""Which source tasks are worth sampling for a target task, by the Lasso."""

from __future__ import annotations

__all__ = ["TaskSelection"]

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_X_y

from ...core.card import Card, Catalogued
from ...core.errors import DataError, OptionError
from ...core.options import check_number, check_whole
from ..penalised.lasso import Lasso

# Given the number of samples wanted of each source task, their features and targets.
Sampler = Callable[[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]


class TaskSelection(Catalogued, BaseEstimator):
    """Learns a shared linear representation from the source tasks that matter.

    All tasks are linear regressions whose coefficients lie in one subspace. In rounds of
    doubling budget the representation and the heads of the source tasks are fitted, the
    head of the target is written as a sparse combination ``nu`` of theirs by the Lasso, and
    the next samples are drawn in proportion to ``|nu|``.

    Parameters
    ----------
    rank : int, default 2
        Dimension of the representation.
    budget : int, default 10000
        Source samples over all rounds.
    rounds : int, default 4
        How often the shares are revised.
    relevance : {"l1", "l2", "uniform"}, default "l1"
        How samples are shared: by the Lasso's ``|nu|``; by the squares of the ``nu`` of
        least norm (the method this one improves on); or evenly.
    alpha : float, default 0.05
        Strength of the Lasso, relative to the least that selects no task.
    floor : float, default 0.05
        Share of each round that is spread evenly, so that no task is given up for good.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Coefficients of the target task.
    representation_ : array of shape (n_features, rank)
        Orthonormal basis of the subspace.
    relevance_ : array of shape (n_tasks,)
        Shares of the last round, summing to one.
    sample_counts_ : array of int of shape (n_tasks,)
        Samples drawn of each source task.

    Raises
    ------
    OptionError
        If an option is out of range.

    References
    ----------
    Wang, Chen, Jamieson and Du, Improved active multi-task representation learning via Lasso
    (ICML 2023), arXiv:2306.02556, for the relevance by the Lasso.
    """

    card = Card(
        name="task-selection",
        title="Improved Active Multi-Task Representation Learning via Lasso",
        authors="Yiping Wang, Yifang Chen, Kevin Jamieson, Simon S. Du",
        year=2023,
        arxiv="2306.02556",
        summary="samples source tasks in proportion to the Lasso's weights of their heads",
    )

    def __init__(
        self,
        rank: int = 2,
        *,
        budget: int = 10_000,
        rounds: int = 4,
        relevance: str = "l1",
        alpha: float = 0.05,
        floor: float = 0.05,
    ) -> None:
        self.rank = rank
        self.budget = budget
        self.rounds = rounds
        self.relevance = relevance
        self.alpha = alpha
        self.floor = floor

    def fit(self, sample: Sampler, X: Any, y: Any, n_tasks: int) -> TaskSelection:
        """Draw source samples in rounds and fit the target.

        Parameters
        ----------
        sample : callable
            ``sample(counts)`` returns, for each of the `n_tasks` source tasks, features of
            shape (counts[i], n_features) and targets; called once per round.
        X : array of shape (n_samples, n_features)
            Features of the target task.
        y : array of shape (n_samples,)
            Its targets.
        n_tasks : int
            Number of source tasks.

        Returns
        -------
        self
            Fitted.

        Raises
        ------
        DataError
            If the sampler returns another number of tasks, samples or features than asked for.
        """
        self._check_options()
        check_whole("n_tasks", n_tasks)
        X, y = check_X_y(X, y, dtype=np.float64, y_numeric=True)
        if self.rank > X.shape[1]:
            raise OptionError(f"rank {self.rank} must lie between 1 and {X.shape[1]}, the features")
        moments = np.zeros((n_tasks, X.shape[1], X.shape[1]))
        cross = np.zeros((n_tasks, X.shape[1]))
        self.sample_counts_ = np.zeros(n_tasks, dtype=int)
        self.relevance_ = np.full(n_tasks, 1 / n_tasks)
        sizes = 2.0 ** np.arange(self.rounds)
        for size in self.budget * sizes / sizes.sum():
            shares = (1 - self.floor) * self.relevance_ + self.floor / n_tasks
            counts = np.maximum(np.round(size * shares).astype(int), 1)
            for task, (features, target) in enumerate(_drawn(sample, counts, X.shape[1])):
                moments[task] += features.T @ features
                cross[task] += features.T @ target
            self.sample_counts_ += counts
            heads = self._heads(moments, cross)
            target_head = np.linalg.lstsq(X @ self.representation_, y, rcond=None)[0]
            self.relevance_ = self._shares(heads, target_head)
        self.coef_ = self.representation_ @ target_head
        return self

    def _check_options(self) -> None:
        for name in ("rank", "budget", "rounds"):
            check_whole(name, getattr(self, name))
        if self.relevance not in ("l1", "l2", "uniform"):
            raise OptionError(f"relevance must be 'l1', 'l2' or 'uniform', got {self.relevance!r}")
        check_number("floor", self.floor, above=0.0, most=1.0)
        check_number("alpha", self.alpha, above=0.0, below=1.0)

    def _heads(self, moments: np.ndarray, cross: np.ndarray) -> np.ndarray:
        """Fit the representation and return the heads of the source tasks in it, as columns.

        The subspace is that of the leading singular vectors of the tasks' own least squares
        solutions, each weighted by the root of its samples.
        """
        size = moments.shape[1]
        ridge = 1e-3 * np.trace(moments.sum(axis=0)) / (size * len(moments)) * np.eye(size)
        solutions = np.stack(
            [np.linalg.solve(m + ridge, c) for m, c in zip(moments, cross, strict=True)], axis=1
        )
        weighted = solutions * np.sqrt(self.sample_counts_)
        self.representation_ = np.linalg.svd(weighted, full_matrices=False)[0][:, : self.rank]
        return self.representation_.T @ solutions

    def _shares(self, heads: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return the shares of the next round."""
        count = heads.shape[1]
        if self.relevance == "uniform":
            return np.full(count, 1 / count)
        if self.relevance == "l2":
            weights = (np.linalg.pinv(heads) @ target) ** 2
        else:
            strongest = float(np.max(np.abs(heads.T @ target))) / len(target)
            if strongest == 0:
                return np.full(count, 1 / count)
            lasso = Lasso(self.alpha * strongest, fit_intercept=False, max_iter=5000)
            weights = np.abs(lasso.fit(heads, target).coef_)
        total = float(weights.sum())
        return weights / total if total > 0 else np.full(count, 1 / count)


def _drawn(sample: Sampler, counts: np.ndarray, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return what the sampler draws, checked against what was asked for."""
    drawn = list(sample(counts))
    if len(drawn) != len(counts):
        raise DataError(f"sample returned {len(drawn)} tasks, n_tasks is {len(counts)}")
    checked = []
    for task, (features, target) in enumerate(drawn):
        features, target = np.asarray(features, dtype=float), np.asarray(target, dtype=float)
        wanted = (counts[task], size), (counts[task],)
        if (features.shape, target.shape) != wanted:
            raise DataError(
                f"task {task} returned features of shape {features.shape} and targets of shape "
                f"{target.shape}, need {wanted[0]} and {wanted[1]}"
            )
        if not (np.all(np.isfinite(features)) and np.all(np.isfinite(target))):
            raise DataError(f"task {task} returned NaN or infinite values")
        checked.append((features, target))
    return checked
