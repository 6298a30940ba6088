"""Scoring systems: classifiers with a few small whole-number points, found exactly."""

from __future__ import annotations

__all__ = ["ScoringSystem"]

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ...core.card import Card, Catalogued
from ...core.errors import DataError, OptionError
from ...core.options import check_number, check_whole
from .scoring_program import Limits, Patterns, Program, totals


class ScoringSystem(Catalogued, ClassifierMixin, BaseEstimator):
    """Supersparse linear integer model (SLIM).

    Minimises the share of wrong training samples plus `sparsity` times the number of
    features used, over whole-number points, as a mixed-integer programme (HiGHS). A sample
    is of the second class if its points sum to more than zero. Samples that agree in every
    feature are merged first, which changes nothing but the time.

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
    requires : sequence of (int, int), optional
        Pairs of columns: the first may be used only if the second is used too.
    class_weight : dict or "balanced", optional
        Weights of errors per class, as elsewhere in scikit-learn; the weights of all samples
        are then brought to a sum of one.
    min_sensitivity : float, optional
        Least share of the second class's training samples that must be found, in [0, 1].
    max_false_positive_rate : float, optional
        Largest share of the first class's training samples that may be taken for the second,
        in [0, 1].
    data_reduction : bool, default False
        Whether to look, when the search does not end at its first node, for samples whose
        class is the same in every system as good as the best one found there, and to fix
        it. The optimum stays; one linear programme per sample is solved. Worth its time
        where errors are few and `max_points` and `max_offset` are small.
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
        The constant; coprime with the points.
    objective_ : float
        Weighted share of wrong training samples plus `sparsity` per feature used, counted
        from the points.
    gap_ : float
        By how much at most a better system may lie below the objective.
    n_patterns_ : int
        Distinct rows of the training data.
    n_decided_ : int
        Those whose class data reduction fixed.
    classes_ : array of shape (2,)
        Class labels.

    Raises
    ------
    OptionError
        If an option is out of range.
    DataError
        If there are not two classes, or no model was found within the limits.

    Warns
    -----
    ConvergenceWarning
        If the solver states less than its points give (``objective_`` and ``gap_`` are those
        of the points), or if a feature is too small to move any total. Both come from
        features in units that do not suit whole points.

    Notes
    -----
    Totals within about 1e-7 of the largest that a sample can have are not told from zero in
    the search: where whole numbers run into millions, give such features in larger units.

    References
    ----------
    Ustun and Rudin, Supersparse linear integer models for optimized medical scoring systems,
    Machine Learning 102 (2016), arXiv:1502.04269, for the integer programme, its operational
    constraints and the data reduction.

    Examples
    --------
    >>> import pandas as pd
    >>> from thresher.linear import ScoringSystem
    >>> X = pd.DataFrame({"fever": [0, 0, 1, 1, 1, 0], "cough": [0, 1, 0, 1, 1, 0],
    ...                   "tall": [1, 0, 0, 1, 0, 0]})
    >>> y = ["healthy", "healthy", "healthy", "sick", "sick", "healthy"]
    >>> model = ScoringSystem(max_points=3, max_offset=5).fit(X, y)
    >>> print(model.card_text())
    Predict sick if the total exceeds 1:
      fever  +1 points per unit
      cough  +1 points per unit
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
        requires: Sequence[tuple[int, int]] | None = None,
        class_weight: Any = None,
        min_sensitivity: float | None = None,
        max_false_positive_rate: float | None = None,
        data_reduction: bool = False,
        time_limit: float = 60.0,
        node_limit: int | None = None,
    ) -> None:
        self.sparsity = sparsity
        self.max_points = max_points
        self.max_offset = max_offset
        self.max_features = max_features
        self.signs = signs
        self.requires = requires
        self.class_weight = class_weight
        self.min_sensitivity = min_sensitivity
        self.max_false_positive_rate = max_false_positive_rate
        self.data_reduction = data_reduction
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
        self._check_options()
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) > 2:
            raise DataError(
                "Only binary classification is supported. The type of the target is multiclass."
            )
        if len(self.classes_) < 2:
            raise DataError("a scoring system needs samples of two classes, got one class")
        limits = self._limits(X.shape[1])
        weight = compute_sample_weight(self.class_weight, y)
        if not weight.sum() > 0 or weight.min() < 0:
            raise OptionError(f"class_weight must not be negative or all zero: {self.class_weight}")
        program = Program(
            Patterns.of(X, codes, weight / weight.sum()), float(self.sparsity), limits
        )
        faint = program.faint()
        if len(faint):
            warnings.warn(
                f"columns {faint.tolist()} are too small for any points to move a total; give "
                "them in smaller units",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._keep(program, self._search(program))
        return self

    def _check_options(self) -> None:
        check_whole("max_points", self.max_points)
        check_whole("max_offset", self.max_offset, least=0)
        for name in ("max_features", "node_limit"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name))
        check_number("sparsity", self.sparsity, above=0.0, below=1.0)
        if self.time_limit != np.inf:  # no limit
            check_number("time_limit", self.time_limit, above=0.0)
        for name in ("min_sensitivity", "max_false_positive_rate"):
            share = getattr(self, name)
            if share is not None:
                check_number(name, share, most=1.0)

    def _limits(self, n_features: int) -> Limits:
        """Return the constraints, for data of so many features."""
        signs = np.zeros(n_features) if self.signs is None else np.asarray(self.signs)
        if signs.shape != (n_features,):
            raise OptionError(f"signs has shape {signs.shape}, X has {n_features} features")
        if not np.all(np.isin(signs, (-1, 0, 1))):
            raise OptionError(f"signs must be -1, 0 or 1 for every feature, got {self.signs}")
        requires = [] if self.requires is None else list(self.requires)
        for pair in requires:
            if np.shape(pair) != (2,) or not all(j in range(n_features) for j in pair):
                raise OptionError(
                    f"requires holds {pair}; it takes pairs of columns from 0 to {n_features - 1}"
                )
        return Limits(
            np.where(signs > 0, 0, -self.max_points),
            np.where(signs < 0, 0, self.max_points),
            self.max_offset,
            self.max_features,
            requires,
            self.min_sensitivity,
            self.max_false_positive_rate,
        )

    def _search(self, program: Program) -> Any:
        """Return the solver's result, with data reduction between two searches if asked for."""
        end = time.monotonic() + self.time_limit
        known = np.zeros(len(program.patterns.X), dtype=int)
        self.n_patterns_, self.n_decided_ = len(known), 0
        if self.data_reduction:
            first = program.solve(self.time_limit, 1, known)
            if first.x is not None and first.status != 0:
                offset, points = _rounded(first.x, program)
                upper, broken = program.judge(offset, points)
                if not broken:
                    upper += program.tie * float(np.abs(points).sum())
                    known = program.decided(upper, end - 0.5 * self.time_limit)
                self.n_decided_ = int(np.count_nonzero(known))
        found = program.solve(max(end - time.monotonic(), 0.01), self.node_limit, known)
        if found.x is None:
            raise DataError(
                "no points satisfy the limits"
                if found.status == 2
                else f"no scoring system was found within {self.time_limit} s"
                + ("" if self.node_limit is None else f" and {self.node_limit} nodes")
                + "; raise the limit, or give fewer samples or features"
            )
        return found

    def _keep(self, program: Program, found: Any) -> None:
        """Round the points, and judge them by what they do rather than by the solver's word."""
        self.offset_, self.points_ = _rounded(found.x, program)
        self.objective_, broken = program.judge(self.offset_, self.points_)
        reached = self.objective_ + program.tie * float(np.abs(self.points_).sum())
        bound = found.mip_dual_bound
        bound = -np.inf if bound is None else bound + program.constant
        self.gap_ = max(float(reached - bound), 0.0)
        claimed = found.fun + program.constant
        if reached > claimed + 1e-6 or broken:
            warnings.warn(
                f"the solver states an objective of {claimed:.6g}, its points give {reached:.6g}"
                f"{'' if not broken else ' and break ' + broken}: features reach "
                f"{np.abs(program.patterns.X).max():.3g}, too far for whole points; divide the "
                "largest",
                ConvergenceWarning,
                stacklevel=3,
            )

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the sum of the points of every sample, of shape (n_samples,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return totals(X, self.offset_, self.points_)

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of every sample: the second where the points exceed zero."""
        total = self.decision_function(X)
        return self.classes_[(total > 0).astype(int)]

    def card_text(self) -> str:
        """Return the score card as text, one line per feature that is used."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        names = [f"x{j}" for j in range(len(self.points_))] if names is None else list(names)
        lines = [f"Predict {self.classes_[1]} if the total exceeds {-self.offset_}:"]
        width = max((len(names[j]) for j in np.flatnonzero(self.points_)), default=0)
        lines += [
            f"  {names[j]:<{width}}  {self.points_[j]:+d} points per unit"
            for j in np.flatnonzero(self.points_)
        ]
        return "\n".join(lines)


def _rounded(solution: np.ndarray, program: Program) -> tuple[int, np.ndarray]:
    """Return offset and points as coprime whole numbers, which keeps the sign of every total."""
    values = np.round(solution[: program.patterns.X.shape[1] + 1]).astype(int)
    values //= max(int(np.gcd.reduce(values)), 1)
    return int(values[0]), values[1:]
