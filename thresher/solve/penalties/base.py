"""What a penalty must answer so that the solvers can use it."""

from __future__ import annotations

__all__ = ["Coupled", "Penalty", "Separable"]

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from ...core.errors import OptionError
from ...core.options import check_number
from .dual_norms import Feasible, l1_like
from .equality import ComparedByValue

_SHOWN = 12  # entries of an array that are written out


class Penalty(ComparedByValue, ABC):
    """A regulariser of coefficients.

    A subclass needs :meth:`value` and :meth:`prox`; the rest has defaults. Any such penalty
    works with the proximal gradient solver. Coordinate descent takes :class:`Separable`
    ones, group descent :class:`~thresher.solve.penalties.blocks.Grouped` ones.
    """

    convex: ClassVar[bool] = True

    @abstractmethod
    def value(self, coef: np.ndarray) -> float:
        """Return the penalty at `coef`."""

    @abstractmethod
    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return ``argmin_z 0.5 * ||z - x||^2 + step * value(z)``."""

    def subdifferential_distance(
        self, coef: np.ndarray, gradient: np.ndarray, curvature: float = 1.0
    ) -> np.ndarray:
        """Return how far `coef` is from optimal, per coefficient or per block.

        Where the subdifferential has no simple form, the default is the length of a proximal
        gradient step over its factor ``1 / curvature``, which vanishes at the same points.

        Parameters
        ----------
        coef : array of shape (p,) or (p, tasks)
            The coefficients.
        gradient : array of the same shape
            Gradient of the datafit at `coef`.
        curvature : float, default 1
            About that of the datafit along a coefficient. Without it a step would be long or
            short beside the coefficients by nothing but the units of the features.
        """
        step = 1 / curvature if curvature > 0 else 1.0
        return np.abs(coef - self.prox(coef - step * gradient, step)) / step

    def generalized_support(self, coef: np.ndarray) -> np.ndarray:
        """Return which coefficients the penalty leaves free to move: boolean, as `coef`."""
        return coef != 0

    def free_directions(self, shape: tuple[int, ...]) -> sparse.csc_array:
        """Return the directions along which the penalty never changes, as columns (p, count).

        Parameters
        ----------
        shape : tuple of int
            Of the coefficients; a direction holds for every output alone.
        """
        return sparse.csc_array((shape[0], 0))

    def unpenalised(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return which features have no slope at zero to hold them there: boolean, (p,).

        Parameters
        ----------
        shape : tuple of int
            Of the coefficients.
        """
        return np.zeros(shape[0], dtype=bool)

    def alpha_max(self, gradient: np.ndarray) -> float:
        """Return the smallest factor of the penalty at which all coefficients are zero.

        Found by bisection, where a class knows no formula.

        Parameters
        ----------
        gradient : array of the shape of the coefficients
            Of the datafit with all coefficients zero, but for those that are not penalised,
            where it is zero.

        Raises
        ------
        OptionError
            If no factor does it: a penalty without a slope at zero, or with an infinite one, or
            combinations of coefficients that cost nothing.
        """
        largest = float(np.max(np.abs(gradient), initial=0.0))
        self._require_slope(gradient, largest)
        zero = np.zeros(gradient.shape)

        def leaves_zero(factor: float) -> bool:
            distance = self.scaled(factor).subdifferential_distance(zero, gradient)
            return bool(np.max(distance, initial=0.0) > 1e-12 * largest)

        if not leaves_zero(0.0):
            return 0.0
        # Strengths have the unit of the gradient where the norm is one of coefficients.
        low, high = 0.0, largest
        while leaves_zero(high):
            low, high = high, 2 * high
            if high > 1e9 * largest:
                raise self.no_start("leaves some combinations of coefficients free")
        while low == 0 and high > 1e-9 * largest and not leaves_zero(high / 2):
            high /= 2
        while high - low > 1e-10 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if leaves_zero(middle) else (low, middle)
        return high

    def _require_slope(self, gradient: np.ndarray, largest: float) -> None:
        """Raise if the penalty grows like a square around zero, so that it never holds zero."""
        if largest == 0:
            return
        value, near = self.value(gradient / largest), self.value(1e-6 * gradient / largest)
        if np.isfinite(value) and near < 1e-9 * value:
            raise self.no_start("has no slope at zero")

    def no_start(self, reason: str) -> OptionError:
        """Return the error that says why a path under this penalty has no natural start."""
        return OptionError(
            f"{type(self).__name__} {reason}, so that no strength gives zeros alone and the path "
            "has no natural start; give alphas"
        )

    def feasible(self, gradient: np.ndarray) -> Feasible | None:
        """Make a gradient of the datafit feasible for the conjugate of the penalty.

        None where no rule is known: solvers then stop on the violation of optimality.

        Parameters
        ----------
        gradient : array of the shape of the coefficients
            Orthogonal to the :meth:`free_directions`.
        """
        return None

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Say why coefficients of a shape are not taken; None if they are.

        Parameters
        ----------
        shape : tuple of int
            ``(p,)``, or ``(p, outputs)`` for a loss of several outputs.
        """
        return None

    def scaled(self, factor: float) -> Penalty:
        """Return the same penalty with its strength ``alpha`` multiplied by `factor`."""
        return replace(self, alpha=self.alpha * factor)  # type: ignore[type-var, attr-defined]

    def restricted(self, columns: np.ndarray) -> Penalty:
        """Return the penalty of the coefficients `columns` alone, if it separates."""
        raise OptionError(f"{type(self).__name__} couples all coefficients; it has no restriction")


@dataclass(frozen=True)
class Separable(Penalty):
    """A penalty that is a sum over coefficients of a function of their magnitude.

    Parameters
    ----------
    alpha : float, default 1
        Strength, not negative.
    weights : array of shape (p,), optional
        Factor of `alpha` for each coefficient; zero leaves a coefficient free.
    positive : bool, default False
        Whether coefficients below zero are excluded.

    Raises
    ------
    OptionError
        If `alpha` or a weight is negative.
    """

    alpha: float = 1.0
    weights: Any = None
    positive: bool = False

    # How the compiled descents know the penalty; None if they do not.
    kind: ClassVar[int | None] = None
    # The second number they are sent.
    shape: ClassVar[Any] = 0.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        if self.weights is not None:
            weights = np.asarray(self.weights, dtype=float)
            if weights.ndim != 1 or not np.all(weights >= 0):
                raise OptionError("weights must be a vector without negative entries")
            if not np.all(np.isfinite(weights)):
                raise OptionError(
                    f"weights must be finite, got {np.max(weights)} at {int(np.argmax(weights))}; "
                    "leave out a column to exclude it"
                )
            object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "positive", bool(self.positive))

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Say why coefficients of a shape are not taken; None if they are."""
        if self.weights is None or self.weights.shape == shape:
            return None
        if len(shape) > 1:
            return "weights are for a single output; use Rows with weights for several"
        return f"weights has {len(self.weights)} entries for {shape[0]} coefficients"

    @property
    def strength(self) -> Any:
        """``alpha * weights``, a number where there are no weights."""
        return self.alpha if self.weights is None else self.alpha * self.weights

    @property
    def slope_at_zero(self) -> Any:
        """Derivative of the penalty on the right of zero, per coefficient or one for all."""
        return self.strength

    @abstractmethod
    def values(self, magnitude: np.ndarray) -> np.ndarray:
        """Return the penalty of each coefficient, given its magnitude."""

    @abstractmethod
    def derivatives(self, magnitude: np.ndarray) -> np.ndarray:
        """Return the derivative at each magnitude (used where it is positive)."""

    @abstractmethod
    def threshold(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the prox without regard to the sign constraint."""

    def value(self, coef: np.ndarray) -> float:
        """Return the sum of the penalties of all coefficients, infinite if one is excluded."""
        if self.positive and np.any(coef < 0):
            return np.inf
        return float(np.sum(self.values(np.abs(coef))))

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the proximal point of every entry of `x`."""
        return self.threshold(np.maximum(x, 0) if self.positive else x, step)

    def subdifferential_distance(
        self, coef: np.ndarray, gradient: np.ndarray, curvature: float = 1.0
    ) -> np.ndarray:
        """Return the distance of ``-gradient`` from the subdifferential, per coefficient."""
        pull = -gradient if self.positive else np.abs(gradient)
        at_zero = np.maximum(pull - self.slope_at_zero, 0)
        magnitude = np.where(coef == 0, 1.0, np.abs(coef))
        away = np.abs(gradient + np.sign(coef) * self.derivatives(magnitude))
        distance = np.where(coef == 0, at_zero, away)
        return np.where(coef < 0, np.inf, distance) if self.positive else distance

    def generalized_support(self, coef: np.ndarray) -> np.ndarray:
        """Return where `coef` is not zero or is not penalised."""
        return (coef != 0) | (np.asarray(self.strength) == 0)

    def unpenalised(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return which features have a weight of zero, unless all have no slope at zero."""
        free = np.broadcast_to(np.asarray(self.slope_at_zero) == 0, shape[:1])
        return free if not free.all() else np.zeros(shape[0], dtype=bool)

    def alpha_max(self, gradient: np.ndarray) -> float:
        """Return the largest ratio of a gradient to the slope at zero."""
        pull = np.maximum(-gradient, 0) if self.positive else np.abs(gradient)
        slope = np.broadcast_to(np.asarray(self.slope_at_zero, dtype=float), pull.shape)
        if not np.all(np.isfinite(slope)):
            raise self.no_start("has an infinite slope at zero")
        if not np.any(slope > 0):
            raise self.no_start("has no slope at zero (l1_ratio 0, or no strength)")
        return float(np.max(pull / np.where(slope > 0, slope, np.inf), initial=0.0))

    @property
    def is_l1_like(self) -> bool:
        """Whether this is the L1 norm or the elastic net, on magnitudes or on norms of blocks.

        Not so where a sign is constrained but nothing else is: the conjugate then is finite for
        slopes of one sign alone, which no factor gives them.
        """
        strength = np.asarray(self.strength)
        one_sided = self.positive and not np.all(strength > 0) and not self.shape
        return self.kind == 0 and not one_sided

    def free_directions(self, shape: tuple[int, ...]) -> sparse.csc_array:
        """Return the coefficients without a penalty."""
        strength = np.broadcast_to(self.strength, shape[:1])
        unbent = self.kind == 0 and not self.shape and not self.positive
        return unit_vectors((strength == 0) & unbent)

    def feasible(self, gradient: np.ndarray) -> Feasible | None:
        """Make a gradient feasible for the L1 norm and the elastic net."""
        if not self.is_l1_like:
            return None
        pull = -gradient if self.positive else np.abs(gradient)
        return l1_like(pull.ravel(), self.strength, np.asarray(self.shape))

    def restricted(self, columns: np.ndarray) -> Separable:
        """Return the penalty of the coefficients `columns`."""
        return self if self.weights is None else replace(self, weights=self.weights[columns])

    @property
    def code(self) -> tuple[int | None, float, float, bool]:
        """The penalty as the compiled descents take it."""
        second = self.shape if isinstance(self.shape, int | float) else 0.0
        return (self.kind, float(self.alpha), float(second), self.positive)

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}={told(getattr(self, f.name))}" for f in fields(self))
        return f"{type(self).__name__}({shown})"


def told(value: Any) -> str:
    """Return a field as text; of a long array its ends and its sum, by which to know it."""
    if not isinstance(value, np.ndarray):
        return repr(value)
    if value.size <= _SHOWN:
        return np.array2string(value, separator=", ", max_line_width=10_000)
    ends = np.array2string(value, separator=", ", threshold=_SHOWN, max_line_width=10_000)
    return f"<{value.size} numbers {ends} of sum {value.sum():.10g}>"


def unit_vectors(chosen: np.ndarray) -> sparse.csc_array:
    """Return the unit vectors of the chosen coefficients, as columns."""
    rows = np.flatnonzero(chosen)
    starts = np.arange(len(rows) + 1)
    return sparse.csc_array((np.ones(len(rows)), rows, starts), shape=(len(chosen), len(rows)))


@dataclass(frozen=True)
class Coupled(Penalty):
    """A penalty that couples the coefficients of a single output.

    Parameters
    ----------
    alpha : float, default 1
        Strength, not negative.

    Raises
    ------
    OptionError
        If `alpha` is negative.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Say why coefficients of a shape are not taken; None if they are."""
        return None if len(shape) == 1 else "it is defined for a single output; use Rows"
