"""What the solvers are given, and what they return."""

from __future__ import annotations

__all__ = ["Problem", "Solution", "Trail", "relative_weights"]

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..core.errors import DataError
from . import _solve
from .datafits import Datafit
from .design import Design
from .line_search import falls, search
from .penalties import Penalty

T = TypeVar("T")
Trail = _solve.Trail64 | _solve.Trail32

_EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Problem:
    """Minimise ``datafit(y, X w + intercept) + penalty(w)``.

    Parameters
    ----------
    design : Design
        The features, of shape (n, p).
    y : array of shape (n,) or (n, outputs)
        The target.
    datafit : Datafit
        The loss.
    penalty : Penalty
        The regulariser.
    weight : array of shape (n,)
        Sample weights that sum to one.
    intercept : bool
        Whether an unpenalised constant is fitted.
    """

    design: Design
    y: np.ndarray
    datafit: Datafit
    penalty: Penalty
    weight: np.ndarray
    intercept: bool = True
    #: What the fits of a path hand on to the next, on a path.
    trail: Trail | None = field(init=False, default=None, repr=False, compare=False)
    # What follows from all but the penalty, by what computes it: once for a whole path. With other
    # data, by `dataclasses.replace`, a problem begins with nothing kept.
    _kept: dict[Any, Any] = field(init=False, default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(
        cls,
        X: Any,
        y: Any,
        datafit: Datafit,
        penalty: Penalty,
        sample_weight: Any = None,
        intercept: bool = True,
    ) -> Problem:
        """Check the arrays against each other and the datafit, and normalise the weights.

        Raises
        ------
        DataError
            If shapes differ, weights are negative or all zero, or the target does not fit or is
            degenerate, such as a single class.
        """
        design = X if isinstance(X, Design) else Design(X)
        y = np.asarray(datafit.target(y), dtype=float)
        n = design.shape[0]
        if len(y) != n:
            raise DataError(f"X has {n} rows but y has {len(y)}")
        if datafit.multiple_outputs != (y.ndim == 2):
            wanted = "a matrix" if datafit.multiple_outputs else "a vector"
            raise DataError(f"{type(datafit).__name__} needs {wanted} as target, got {y.shape}")
        if not np.all(np.isfinite(y)):
            raise DataError("y holds NaN or infinite values; leave out those samples")
        datafit.check_target(y)
        weight = relative_weights(sample_weight, n)
        degeneracy = datafit.degeneracy(y, weight, intercept)
        if degeneracy:
            raise DataError(f"{type(datafit).__name__} has nothing to fit: {degeneracy}")
        return cls(design, y, datafit.in_units(y, weight), penalty, weight, bool(intercept))

    @property
    def uniform(self) -> bool:
        """Whether all samples weigh the same."""
        return self.once(_is_uniform)

    @property
    def coef_shape(self) -> tuple[int, ...]:
        """Shape of the coefficients: (p,) or (p, outputs)."""
        return (self.design.shape[1], *self.y.shape[1:])

    def with_penalty(self, penalty: Penalty) -> Problem:
        """Return the same problem under another penalty; what is kept is theirs together."""
        return self._beside(replace(self, penalty=penalty), self.trail)

    def with_trail(self, trail: Trail) -> Problem:
        """Return the same problem, whose fits hand on what they found by a trail."""
        return self._beside(replace(self), trail)

    def _beside(self, other: Problem, trail: Trail | None) -> Problem:
        object.__setattr__(other, "_kept", self._kept)
        object.__setattr__(other, "trail", trail)
        return other

    def predict(self, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
        """Return the predictions, in double precision."""
        return self.design.predict(coef).astype(float) + intercept

    def gradient(self, prediction: np.ndarray) -> np.ndarray:
        """Return the gradient of the datafit with respect to the coefficients."""
        return self.design.correlate(self.datafit.gradient(self.y, prediction, self.weight))

    def objective(self, coef: np.ndarray, prediction: np.ndarray) -> float:
        """Return datafit plus penalty."""
        loss = self.datafit.value(self.y, prediction, self.weight)
        return loss + self.penalty.value(coef)

    def once(self, compute: Callable[[Problem], T]) -> T:
        """Return what a function makes of the problem, computed once for all penalties.

        Parameters
        ----------
        compute : callable
            A function of a module, by which what it returned is found again. It must not look at
            the penalty.
        """
        if compute not in self._kept:
            self._kept[compute] = compute(self)
        found: T = self._kept[compute]
        return found

    @property
    def moments(self) -> tuple[np.ndarray | None, np.ndarray]:
        """Weighted mean (None without intercept) and second moment of every column."""
        return self.once(_moments)

    @property
    def centre(self) -> np.ndarray:
        """What the target is measured from: its median, zero where the loss knows no shift."""
        return self.once(_median)

    @property
    def centred(self) -> Problem:
        """The same problem with its target measured from :attr:`centre`."""
        if not np.any(self.centre):
            return self
        return self.once(_centred).with_penalty(self.penalty)

    @property
    def best_constant(self) -> np.ndarray:
        """The intercept that fits best with all coefficients zero."""
        if np.any(self.centre):
            return self.centre + self.centred.best_constant
        return self.once(_best_constant)

    @property
    def null_prediction(self) -> np.ndarray:
        """Predictions of the best constant."""
        return np.zeros_like(self.y) + self.best_constant

    @property
    def null_gradient(self) -> np.ndarray:
        """Gradient with all coefficients zero."""
        if np.any(self.centre):
            return self.centred.null_gradient
        return self.once(_null_gradient)

    def best_intercept(self, offset: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Return the intercept that fits best on top of the predictions `offset`.

        Newton's method with step halving, from `start`, to the last digits.
        """
        intercept = np.array(start, dtype=float)
        if not self.intercept:
            return intercept
        if self.datafit.quadratic:
            return intercept - self.datafit.gradient(self.y, offset + intercept, self.weight).sum(
                axis=0
            )
        loss = self.datafit.value(self.y, offset + intercept, self.weight)
        if not self.datafit.finite and not np.isfinite(loss):
            # At the constant that fits without coefficients the loss is finite, and above it.
            intercept = self.best_constant - offset.min(axis=0)
            loss = self.datafit.value(self.y, offset + intercept, self.weight)
        flat, least = False, np.inf
        for _ in range(100):
            arguments = (self.y, offset + intercept, self.weight)
            terms = self.datafit.gradient(*arguments)
            slope = terms.sum(axis=0)
            size = float(np.max(np.abs(slope)))
            if size <= _EPSILON * float(np.abs(terms).sum()):
                break  # rounding is all that is left
            if flat and size >= least:
                break  # neither the loss nor its slope tells a better constant
            least = size
            step = slope / max(float(self.datafit.curvature(*arguments).sum()), 1e-300)
            taken = self._searched(offset, intercept, step, loss)
            if taken is None:
                break
            reached, moved = taken
            change, intercept = float(np.max(np.abs(moved - intercept))), moved
            if change <= 1e-14 * max(1.0, float(np.max(np.abs(intercept)))):
                break
            flat, loss = falls(loss, reached, whole=True), min(loss, reached)
        return intercept

    def _searched(
        self, offset: np.ndarray, intercept: np.ndarray, step: np.ndarray, loss: float
    ) -> tuple[float, np.ndarray] | None:
        """Return the loss and the intercept that a step down from `loss` ends at."""

        def reach(length: float) -> tuple[float, np.ndarray]:
            moved = intercept - length * step
            return self.datafit.value(self.y, offset + moved, self.weight), moved

        return search(reach, loss, trials=60)

    def violation(self, coef: np.ndarray, prediction: np.ndarray) -> float:
        """Return the largest violation of the optimality conditions.

        The slope along the intercept counts as that along a column of ones in the unit of the
        most varied column, so that the units of the features scale the whole.
        """
        slope = self.datafit.gradient(self.y, prediction, self.weight)
        largest = float(np.max(self.moments[1], initial=0.0))
        gradient = self.design.correlate(slope)
        distance = self.penalty.subdifferential_distance(coef, gradient, largest)
        worst = float(np.max(distance, initial=0.0))
        if self.intercept:
            worst = max(worst, float(np.max(np.abs(slope.sum(axis=0)))) * largest**0.5)
        return worst


def _is_uniform(problem: Problem) -> bool:
    return bool(np.all(problem.weight == problem.weight[0]))


def _moments(problem: Problem) -> tuple[np.ndarray | None, np.ndarray]:
    weight = None if problem.uniform else problem.weight
    return problem.design.moments(weight, problem.intercept)


def _median(problem: Problem) -> np.ndarray:
    if not (problem.intercept and problem.datafit.shift_equivariant):
        return np.zeros(problem.y.shape[1:])
    # An entry of the target itself, so that a constant one leaves exact zeros.
    return np.quantile(problem.y[problem.weight > 0], 0.5, axis=0, method="lower")


def _centred(problem: Problem) -> Problem:
    return replace(problem, y=problem.y - problem.centre)


def _best_constant(problem: Problem) -> np.ndarray:
    return problem.best_intercept(np.zeros_like(problem.y), np.zeros(problem.y.shape[1:]))


def _null_gradient(problem: Problem) -> np.ndarray:
    return problem.gradient(problem.null_prediction)


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    Parameters
    ----------
    coef : array of shape (p,) or (p, outputs)
        Coefficients.
    intercept : array of shape () or (outputs,)
        The constant; zero where none was fitted.
    criterion : float
        Duality gap or violation of optimality at the end, relative to its scale.
    kind : str
        What `criterion` is: ``"duality gap"`` or ``"optimality violation"``.
    n_iter : int
        Rounds of the outer loop.
    converged : bool
        Whether the tolerance was met.
    stalled : bool, default False
        Whether the solver gave up before its last round, as no step led on.
    """

    coef: np.ndarray
    intercept: np.ndarray
    criterion: float
    kind: str
    n_iter: int
    converged: bool
    stalled: bool = False

    def warn_unless_converged(self, tolerance: float, stacklevel: int = 3) -> Solution:
        """Emit a ConvergenceWarning that states what was reached; return the solution."""
        if not self.converged:
            end, remedy = "after", "max_iter or alpha"
            if self.stalled:  # more rounds would not help
                end, remedy = "and stalled after", "alpha"
            warnings.warn(
                f"the {self.kind} is {self.criterion:.2e} of its scale {end} {self.n_iter} "
                f"iterations, above the tolerance {tolerance:.2e}; raise {remedy}, or scale the "
                "features",
                ConvergenceWarning,
                stacklevel=stacklevel,
            )
        return self


def relative_weights(sample_weight: Any, count: int) -> np.ndarray:
    """Return sample weights that sum to one; equal ones if none are given.

    Raises
    ------
    DataError
        Unless there is a finite number for every sample, none negative, and not all zero.
    """
    if sample_weight is None:
        return np.full(count, 1.0 / count)
    weight = np.asarray(sample_weight, dtype=float)
    valid = weight.shape == (count,) and np.all((weight >= 0) & (weight < np.inf))
    if not (valid and np.any(weight)):
        raise DataError(
            f"sample_weight must hold {count} finite non-negative numbers, not all zero"
        )
    weight = weight / weight.max()  # so that no sum overflows
    return weight / weight.sum()
