"""Scoring systems: classifiers with a few small whole-number points, found exactly."""

from __future__ import annotations

__all__ = ["ScoringSystem"]

from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..core.card import Card, Catalogued
from ..core.errors import DataError, OptionError


class ScoringSystem(Catalogued, ClassifierMixin, BaseEstimator):
    """Supersparse linear integer model (SLIM).

    Minimises the share of wrong training samples plus `sparsity` times the number of
    features used, over whole-number points, as a mixed-integer programme (HiGHS). A sample
    is of the second class if its points sum to more than zero.

    Parameters
    ----------
    sparsity : float, default 0.01
        What a feature must save in training error to be used, in (0, 1).
    max_points : int, default 10
        Points lie between minus this and this.
    max_offset : int, default 100
        Bound of the constant.
    max_features : int, optional
        Most features used.
    signs : array of shape (n_features,), optional
        1 or -1 where points must not have the other sign, 0 where both may be.
    time_limit : float, default 60
        Seconds; the best found by then is kept, with ``gap_`` stating how far it may be
        from optimal. What is found by then depends on the machine and its load.
    node_limit : int, optional
        Most nodes of the search tree; a search that ends by it finds the same everywhere.

    Attributes
    ----------
    points_ : array of int of shape (n_features,)
        Points per unit of each feature.
    offset_ : int
        The constant.
    objective_ : float
        What was minimised.
    gap_ : float
        Difference between the objective and its proven lower bound.
    classes_ : array of shape (2,)
        Class labels.

    Raises
    ------
    DataError
        If there are not two classes, or no model was found within the time.
    """

    card = Card(
        name="scoring-system",
        title="Supersparse Linear Integer Models for Optimized Medical Scoring Systems",
        authors="Berk Ustun, Cynthia Rudin",
        year=2015,
        arxiv="1502.04269",
        summary="few small whole-number points per feature, minimising errors exactly",
    )

    def __init__(
        self,
        sparsity: float = 0.01,
        *,
        max_points: int = 10,
        max_offset: int = 100,
        max_features: int | None = None,
        signs: Any = None,
        time_limit: float = 60.0,
        node_limit: int | None = None,
    ) -> None:
        self.sparsity = sparsity
        self.max_points = max_points
        self.max_offset = max_offset
        self.max_features = max_features
        self.signs = signs
        self.time_limit = time_limit
        self.node_limit = node_limit

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X: Any, y: Any) -> ScoringSystem:
        """Find the points.

        Parameters
        ----------
        X : array or data frame of shape (n_samples, n_features)
            Features; best binary or small whole numbers, so that points can be added.
        y : array of shape (n_samples,)
            Two classes.

        Returns
        -------
        self
            With the points in ``points_``.
        """
        if not 0 < self.sparsity < 1 or self.max_points < 1:
            raise OptionError(
                f"need 0 < sparsity < 1 and max_points of 1 or more, got {self.sparsity} and "
                f"{self.max_points}"
            )
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) > 2:
            raise DataError(
                "Only binary classification is supported. The type of the target is multiclass."
            )
        if len(self.classes_) < 2:
            raise DataError("a scoring system needs samples of two classes, got one class")
        solution = self._solve(X, 2.0 * codes - 1.0)
        if solution.x is None:
            raise DataError(
                f"no scoring system was found within {self.time_limit} s"
                + ("" if self.node_limit is None else f" and {self.node_limit} nodes")
                + "; raise the limit, or give fewer samples or features"
            )
        values = np.round(solution.x[: X.shape[1] + 1]).astype(int)
        self.offset_, self.points_ = int(values[0]), values[1:]
        self.objective_ = float(solution.fun)
        self.gap_ = float(solution.fun - solution.mip_dual_bound)
        return self

    def _solve(self, X: np.ndarray, y: np.ndarray) -> Any:
        """Variables: offset, points, wrong samples, used features, sizes of the points."""
        n, p = X.shape
        # The second class needs a sum above zero, for whole numbers one or more; the first
        # class is right at zero too.
        above = 1.0 if np.array_equal(X, np.round(X)) else 1e-3 * max(np.abs(X).max(), 1e-300)
        margin = np.where(y > 0, above, 0.0)
        tie = 0.5 * min(1 / n, self.sparsity) / (p * self.max_points)
        goal = np.concatenate([[0], np.zeros(p), np.full(n, 1 / n), np.full(p, self.sparsity)])
        goal = np.concatenate([goal, np.full(p, tie)])  # small points among equals: coprime
        signed = y[:, None] * np.column_stack([np.ones(n), X])
        worst = margin + self.max_offset + self.max_points * np.abs(X).sum(axis=1)
        eye, none = np.eye(p), np.zeros((p, 1))
        wide = np.zeros((p, n))
        rows = [
            np.hstack([signed, np.diag(worst), np.zeros((n, 2 * p))]),
            np.hstack([none, -eye, wide, self.max_points * eye, 0 * eye]),
            np.hstack([none, eye, wide, self.max_points * eye, 0 * eye]),
            np.hstack([none, -eye, wide, 0 * eye, eye]),
            np.hstack([none, eye, wide, 0 * eye, eye]),
        ]
        limits = [LinearConstraint(np.vstack(rows), np.r_[margin, np.zeros(4 * p)])]
        if self.max_features is not None:
            used = np.r_[np.zeros(1 + p + n), np.ones(p), np.zeros(p)]
            limits.append(LinearConstraint(used[None], -np.inf, self.max_features))
        signs = np.zeros(p) if self.signs is None else np.asarray(self.signs)
        if signs.shape != (p,):
            raise OptionError(f"signs has shape {signs.shape}, X has {p} features")
        low = np.where(signs > 0, 0, -self.max_points)
        high = np.where(signs < 0, 0, self.max_points)
        bounds = Bounds(
            np.r_[-self.max_offset, low, np.zeros(n + 2 * p)],
            np.r_[self.max_offset, high, np.ones(n + p), np.full(p, self.max_points)],
        )
        whole = np.r_[np.ones(1 + p + n + p), np.zeros(p)]
        options = {"time_limit": self.time_limit, "node_limit": self.node_limit}
        return milp(goal, integrality=whole, bounds=bounds, constraints=limits, options=options)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the sum of the points of every sample, of shape (n_samples,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.points_ + self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of every sample: the second where the points exceed zero."""
        total = self.decision_function(X)
        return self.classes_[(total > 0).astype(int)]

    def card_text(self) -> str:
        """Return the score card as text, one line per feature that is used."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        names = [f"x{j}" for j in range(len(self.points_))] if names is None else list(names)
        lines = [f"Predict {self.classes_[1]!r} if the total exceeds {-self.offset_}:"]
        width = max((len(names[j]) for j in np.flatnonzero(self.points_)), default=0)
        lines += [
            f"  {names[j]:<{width}}  {self.points_[j]:+d} points per unit"
            for j in np.flatnonzero(self.points_)
        ]
        return "\n".join(lines)
