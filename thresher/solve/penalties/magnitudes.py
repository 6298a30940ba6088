"""Penalties that are sums over coefficients of a function of their magnitude."""

from __future__ import annotations

__all__ = ["Kind", "Separable", "unit_vectors"]

from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from ...core.errors import OptionError
from ...core.options import check_number
from .. import _solve
from .base import Penalty, told
from .dual_norms import Feasible, l1_like


class Kind(Enum):
    """What the compiled descents know; the numbers are those of `PenaltyKind` in C++."""

    ELASTIC_NET = 0
    MCP = 1
    SCAD = 2
    LOG_SUM = 3
    LQ = 4
    L0 = 5


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
    kind: ClassVar[Kind | None] = None
    #: Whether it may be put on norms of blocks, which know no sign.
    of_norms: ClassVar[bool] = True
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
        at_zero = np.maximum(self.pull(gradient) - self.slope_at_zero, 0)
        magnitude = np.where(coef == 0, 1.0, np.abs(coef))
        away = np.abs(gradient + np.sign(coef) * self.derivatives(magnitude))
        distance = np.where(coef == 0, at_zero, away)
        return np.where(coef < 0, np.inf, distance) if self.positive else distance

    def pull(self, gradient: np.ndarray) -> np.ndarray:
        """Return how much a gradient pulls zeros to where they may be."""
        return -gradient if self.positive else np.abs(gradient)

    def generalized_support(self, coef: np.ndarray) -> np.ndarray:
        """Return where `coef` is not zero or is not penalised."""
        return (coef != 0) | (np.asarray(self.strength) == 0)

    def unpenalised(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return which features have a weight of zero, unless all have no slope at zero."""
        free = np.broadcast_to(np.asarray(self.slope_at_zero) == 0, shape[:1])
        return free if not free.all() else np.zeros(shape[0], dtype=bool)

    def alpha_max(self, gradient: np.ndarray) -> float:
        """Return the largest ratio of a gradient to the slope at zero."""
        pull = np.maximum(self.pull(gradient), 0)
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
        return self.kind is Kind.ELASTIC_NET and not one_sided

    def free_directions(self, shape: tuple[int, ...]) -> sparse.csc_array:
        """Return the coefficients without a penalty."""
        strength = np.broadcast_to(self.strength, shape[:1])
        unbent = self.kind is Kind.ELASTIC_NET and not self.shape and not self.positive
        return unit_vectors((strength == 0) & unbent)

    def feasible(self, gradient: np.ndarray) -> Feasible | None:
        """Make a gradient feasible for the L1 norm and the elastic net."""
        if not self.is_l1_like:
            return None
        return l1_like(self.pull(gradient).ravel(), self.strength, np.asarray(self.shape))

    def restricted(self, columns: np.ndarray) -> Separable:
        """Return the penalty of the coefficients `columns`."""
        return self if self.weights is None else replace(self, weights=self.weights[columns])

    def given(self, dtype: np.dtype, count: int) -> _solve.Penalty64:
        """Return the penalty as the compiled descents take it.

        Parameters
        ----------
        dtype : dtype
            Precision of the descent.
        count : int
            How many coefficients, or blocks, are penalised.
        """
        single = dtype == np.float32
        lower, upper = self.bounds_of(count)
        cast = [
            None if part is None else np.ascontiguousarray(part, dtype=dtype)
            for part in (self.weights, lower, upper)
        ]
        return (_solve.Penalty32 if single else _solve.Penalty64)(
            kind=None if self.kind is None else self.kind.value,
            alpha=float(self.alpha),
            shape=float(self.shape) if isinstance(self.shape, int | float) else 0.0,
            positive=self.positive,
            factors=cast[0],
            lower=cast[1],
            upper=cast[2],
        )

    def bounds_of(self, count: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return what coefficients are kept between; None where they are not."""
        return None, None

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}={told(getattr(self, f.name))}" for f in fields(self))
        return f"{type(self).__name__}({shown})"


def unit_vectors(chosen: np.ndarray) -> sparse.csc_array:
    """Return the unit vectors of the chosen coefficients, as columns."""
    rows = np.flatnonzero(chosen)
    starts = np.arange(len(rows) + 1)
    return sparse.csc_array((np.ones(len(rows)), rows, starts), shape=(len(chosen), len(rows)))
