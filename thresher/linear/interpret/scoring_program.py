"""The mixed-integer programme behind scoring systems, and the data that it can do without."""

from __future__ import annotations

__all__ = ["Limits", "Patterns", "Program", "totals"]

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

# What HiGHS may leave of a constraint or of a whole number, far below its own default.
_FEASIBILITY = 1e-9
# Totals within this share of the largest possible one cannot be told from zero: a wrong
# sample's indicator off by the tolerance moves its total by that share.
_RESOLUTION = 100 * _FEASIBILITY


@dataclass(frozen=True)
class Limits:
    """What a scoring system must satisfy.

    Parameters
    ----------
    low, high : arrays of int of shape (p,)
        Bounds of the points.
    max_offset : int
        Bound of the constant.
    max_features : int or None
        Most features used.
    requires : sequence of (int, int)
        Pairs of features: the first may be used only together with the second.
    min_sensitivity : float or None
        Least share of the second class that is found.
    max_false_positive_rate : float or None
        Largest share of the first class that is taken for the second.
    """

    low: np.ndarray
    high: np.ndarray
    max_offset: int
    max_features: int | None = None
    requires: Sequence[tuple[int, int]] = ()
    min_sensitivity: float | None = None
    max_false_positive_rate: float | None = None

    @property
    def rates(self) -> bool:
        """Whether a share of a class is limited."""
        return self.min_sensitivity is not None or self.max_false_positive_rate is not None

    @property
    def most(self) -> int:
        """Largest points of any feature."""
        return int(np.max(np.maximum(self.high, -self.low)))


@dataclass(frozen=True)
class Patterns:
    """Samples merged where all features agree: their total, hence their class, is one.

    Parameters
    ----------
    X : array of shape (m, p)
        The distinct rows.
    cost : array of shape (m, 2)
        Weight of the samples of the first and second class: what calling the row of the
        second or of the first class costs. Sums to one.
    count : array of shape (m, 2)
        Samples of either class.
    """

    X: np.ndarray
    cost: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> Patterns:
        """Merge samples of classes 0 and 1 with weights that sum to one."""
        rows, where = np.unique(X, axis=0, return_inverse=True)
        cost, count = np.zeros((len(rows), 2)), np.zeros((len(rows), 2))
        np.add.at(cost, (where.ravel(), codes), weight)
        np.add.at(count, (where.ravel(), codes), 1)
        return cls(rows, cost, count)

    def error(self, positive: np.ndarray) -> float:
        """Return the weight of the samples that are wrong, from the class of each row."""
        return float(np.sum(np.where(positive, self.cost[:, 0], self.cost[:, 1])))


def totals(X: np.ndarray, offset: int, points: np.ndarray) -> np.ndarray:
    """Return the sums of points of samples; those within rounding of zero are zero."""
    total = X @ points + offset
    size = np.abs(X) @ np.abs(points) + abs(offset)
    return np.where(np.abs(total) <= 1e-14 * X.shape[1] * size, 0.0, total)


class Program:
    """Whole points that minimise errors plus `sparsity` per feature used.

    Variables: offset, points, class of each pattern, used features, sizes of the points,
    signs of the features that others require. A pattern's total must exceed zero where it is
    of the second class; the least total that counts is one where all entries are whole, and
    a share of the largest possible total of that pattern otherwise. Every pattern's
    constraints are divided by that largest total, so that no sample sets another's scale.

    Parameters
    ----------
    patterns : Patterns
        The data.
    sparsity : float
        Cost of a feature.
    limits : Limits
        Constraints.
    """

    def __init__(self, patterns: Patterns, sparsity: float, limits: Limits) -> None:
        self.patterns, self.sparsity, self.limits = patterns, sparsity, limits
        m, p = patterns.X.shape
        self.required = sorted({second for _, second in limits.requires})
        # Small points among equals; all ties together cost less than one error or feature.
        smallest = min(float(patterns.cost[patterns.cost > 0].min()), sparsity)
        self.tie = 0.5 * smallest / max(float(np.sum(np.maximum(limits.high, -limits.low))), 1.0)
        self.constant = float(patterns.cost[:, 1].sum())
        costs = [patterns.cost[:, 0] - patterns.cost[:, 1], np.full(p, sparsity)]
        signs = np.zeros(len(self.required))
        self.goal = np.concatenate([np.zeros(1 + p), *costs, np.full(p, self.tie), signs])
        self._blocks = np.cumsum([0, 1, p, m, p, p, len(self.required)])
        self._others = [*self._sizes(), *self._side_constraints()]
        self.rows = [*self._classes(both=limits.rates), *self._others]
        self.bounds = self._bounds()

    def _row(self, least: Any, **parts: Any) -> LinearConstraint:
        """Return ``sum of part @ its variables >= least``; parts not named are zero."""
        names = ("offset", "points", "positive", "used", "size", "sign")
        count = len(np.atleast_1d(least))
        wide = [
            sparse.csr_array(parts[name]) if name in parts else sparse.csr_array((count, size))
            for name, size in zip(names, np.diff(self._blocks), strict=True)
        ]
        return LinearConstraint(sparse.hstack(wide, format="csr"), least, np.inf)

    def _reach(self) -> np.ndarray:
        """Return the largest total that every pattern can have, either way; 1 for none at all."""
        limits = self.limits
        sides = self.patterns.X * limits.high, self.patterns.X * limits.low
        reach = np.maximum(np.maximum(*sides).sum(axis=1), -np.minimum(*sides).sum(axis=1))
        return np.where(reach + limits.max_offset > 0, reach + limits.max_offset, 1.0)

    def _classes(self, both: bool) -> list[LinearConstraint]:
        """Tie the class of every pattern to its total.

        Without `both`, only where the goal gains by the wrong class.
        """
        X, cost, reach = self.patterns.X, self.patterns.cost, self._reach()
        whole = np.all(np.round(X) == X, axis=1)
        margin = np.maximum(_RESOLUTION, np.where(whole, 1 / np.maximum(reach, 1.0), 0.0))
        made = []
        # total / reach >= margin - (1 + margin) (1 - positive)  and  <= positive
        for sign, wanted, slope, least in (
            (1.0, cost[:, 1] > cost[:, 0], -1 - margin, -1.0),
            (-1.0, cost[:, 0] > cost[:, 1], np.ones(len(X)), 0.0),
        ):
            some = np.flatnonzero(wanted | both)
            at = (np.arange(len(some)), some)
            made.append(
                self._row(
                    np.full(len(some), least),
                    offset=sign / reach[some, None],
                    points=sign * X[some] / reach[some, None],
                    positive=sparse.csr_array((slope[some], at), shape=(len(some), len(X))),
                )
            )
        return made

    def faint(self) -> np.ndarray:
        """Return the features too small to move any total away from zero."""
        size = np.maximum(self.limits.high, -self.limits.low)
        share = (np.abs(self.patterns.X) * size / self._reach()[:, None]).max(axis=0)
        return np.flatnonzero((share > 0) & (share < _RESOLUTION))

    def _sizes(self) -> list[LinearConstraint]:
        """Make `used` and `size` bound the points."""
        p = self.patterns.X.shape[1]
        eye, zero = np.eye(p), np.zeros(p)
        limits = self.limits
        return [
            self._row(zero, points=-eye, used=np.diag(np.maximum(limits.high, 0.0))),
            self._row(zero, points=eye, used=np.diag(np.maximum(-limits.low, 0.0))),
            self._row(zero, points=-eye, size=eye),
            self._row(zero, points=eye, size=eye),
        ]

    def _side_constraints(self) -> list[LinearConstraint]:
        limits, made = self.limits, []
        p = self.patterns.X.shape[1]
        if limits.max_features is not None:
            made.append(self._row([-limits.max_features], used=-np.ones((1, p))))
        share = self.patterns.count / np.maximum(self.patterns.count.sum(axis=0), 1)
        if limits.min_sensitivity is not None:
            made.append(self._row([limits.min_sensitivity], positive=share[None, :, 1]))
        if limits.max_false_positive_rate is not None:
            most = limits.max_false_positive_rate
            made.append(self._row([-most], positive=-share[None, :, 0]))
        eye = np.eye(p)
        for first, second in limits.requires:
            made.append(self._row([0.0], used=eye[None, second] - eye[None, first]))
        wide = limits.most + 1.0
        for k, j in enumerate(self.required):
            # Used means not zero: at least one if the sign is 1, at most minus one if 0.
            sign = np.eye(len(self.required))[None, k]
            one = eye[None, j]
            made.append(self._row([-wide], points=one, used=-one, sign=-wide * sign))
            made.append(self._row([0.0], points=-one, used=-one, sign=wide * sign))
        return made

    def _bounds(self) -> Bounds:
        limits = self.limits
        m, p = self.patterns.X.shape
        ones = np.ones(m + p)
        size = np.maximum(limits.high, -limits.low)
        signs = np.ones(len(self.required))
        return Bounds(
            np.r_[-limits.max_offset, limits.low, 0 * ones, 0 * size, 0 * signs],
            np.r_[limits.max_offset, limits.high, ones, size, signs],
        )

    def solve(self, time_limit: float, node_limit: int | None, known: np.ndarray) -> Any:
        """Return SciPy's result; its ``fun`` lacks ``constant``.

        Parameters
        ----------
        time_limit : float
            Seconds.
        node_limit : int or None
            Most nodes.
        known : array of shape (m,)
            1 or -1 for patterns whose class is known to be the second or first, else 0.
        """
        whole = np.ones(self._blocks[-1])
        whole[self._blocks[4] : self._blocks[5]] = 0
        options = {
            "time_limit": time_limit,
            "node_limit": node_limit,
            "mip_rel_gap": 0.0,
            "mip_feasibility_tolerance": _FEASIBILITY,
            "primal_feasibility_tolerance": _FEASIBILITY,
        }
        with warnings.catch_warnings():
            # SciPy warns that it hands the tolerances on to HiGHS unread.
            warnings.filterwarnings("ignore", "Unrecognized options", RuntimeWarning)
            return milp(
                self.goal, integrality=whole, bounds=self._known(known), constraints=self.rows,
                options=options,
            )  # fmt: skip

    def _known(self, known: np.ndarray) -> Bounds:
        low, high = self.bounds.lb.copy(), self.bounds.ub.copy()
        positive = slice(self._blocks[2], self._blocks[3])
        low[positive] = known > 0
        high[positive] = known >= 0
        return Bounds(low, high)

    def judge(self, offset: int, points: np.ndarray) -> tuple[float, str]:
        """Return what a system costs, counted from its points, and which limit it breaks.

        Parameters
        ----------
        offset : int
            The constant.
        points : array of int of shape (p,)
            The points.

        Returns
        -------
        objective : float
            Errors plus features, without the cost of ties.
        broken : str
            The limit on a share that the classes of the samples break, empty if none.
        """
        limits, count = self.limits, self.patterns.count
        positive = totals(self.patterns.X, offset, points) > 0
        objective = self.patterns.error(positive) + self.sparsity * np.count_nonzero(points)
        false, found = count[positive].sum(axis=0) / np.maximum(count.sum(axis=0), 1)
        if limits.min_sensitivity is not None and found < limits.min_sensitivity - 1e-9:
            return float(objective), "min_sensitivity"
        most = limits.max_false_positive_rate
        too_many = most is not None and false > most + 1e-9
        return float(objective), "max_false_positive_rate" if too_many else ""

    def decided(self, upper: float, deadline: float = np.inf) -> np.ndarray:
        """Return the patterns whose class is the same in every system no worse than `upper`.

        A pattern is decided if the linear relaxation, which is nowhere above the programme,
        exceeds `upper` wherever the pattern has the other class.

        Parameters
        ----------
        upper : float
            Value of any system that satisfies the limits.
        deadline : float, optional
            ``time.monotonic()`` after which no further pattern is tried.

        Returns
        -------
        array of int of shape (m,)
            1 or -1 for the second or first class, 0 where undecided.

        References
        ----------
        Ustun and Rudin, Supersparse linear integer models for optimized medical scoring
        systems (2016), on data reduction: with the relaxation as proxy, its level set at
        `upper` holds every optimum.
        """
        rows = [*self._classes(both=True), *self._others]
        A = -sparse.vstack([row.A for row in rows], format="csr")
        b = -np.concatenate([np.atleast_1d(row.lb) for row in rows])
        m = len(self.patterns.X)
        known = np.zeros(m, dtype=int)

        def least() -> tuple[float, np.ndarray]:
            bounds = self._known(known)
            found = linprog(self.goal, A_ub=A, b_ub=b, bounds=np.c_[bounds.lb, bounds.ub])
            if found.x is None:
                return np.inf, np.zeros(m)
            return found.fun + self.constant, found.x[self._blocks[2] : self._blocks[3]]

        # Rounding in the programme must not decide; what it may be wrong by is far smaller.
        upper += 1e-6
        likely = np.where(least()[1] > 0.5, 1, -1)
        for i in range(m):
            if time.monotonic() > deadline:
                break
            known[i] = -likely[i]
            known[i] = likely[i] if least()[0] > upper else 0
        return known
