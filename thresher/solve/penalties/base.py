"""What a penalty must answer so that the solvers can use it."""

from __future__ import annotations

__all__ = ["Coupled", "Penalty", "told"]

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from ...core.errors import OptionError
from ...core.options import check_number
from .dual_norms import Feasible
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


def told(value: Any) -> str:
    """Return a field as text; of a long array its ends and its sum, by which to know it."""
    if not isinstance(value, np.ndarray):
        return repr(value)
    if value.size <= _SHOWN:
        return np.array2string(value, separator=", ", max_line_width=10_000)
    ends = np.array2string(value, separator=", ", threshold=_SHOWN, max_line_width=10_000)
    return f"<{value.size} numbers {ends} of sum {value.sum():.10g}>"
