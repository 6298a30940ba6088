"""What a datafit must answer so that the solvers can use it."""

from __future__ import annotations

__all__ = ["Datafit"]

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np


class Datafit(ABC):
    """A loss of the linear predictions.

    All methods take the target `y`, the predictions ``X @ w + intercept`` of shape (n,) or
    (n, outputs), and sample weights of shape (n,) that sum to one, so that a datafit is a
    weighted mean. A subclass needs :meth:`value`, :meth:`gradient` and :meth:`curvature`;
    every solver then works, with any design.
    """

    #: Whether the loss is a quadratic with unit curvature, which needs no Newton steps.
    quadratic: ClassVar[bool] = False
    #: Whether predictions (and coefficients) are matrices with one column per output.
    multiple_outputs: ClassVar[bool] = False
    #: Whether the loss has a derivative everywhere, as nearly all solvers need.
    smooth: ClassVar[bool] = True
    #: Whether a number bounds the curvature at all predictions, so that steps of fixed length work.
    bounded_curvature: ClassVar[bool] = True
    #: Whether the loss is finite at all predictions.
    finite: ClassVar[bool] = True
    #: Whether the loss depends on target less prediction alone. With an intercept the target is
    #: then measured from its median, so that a large mean costs no digits.
    shift_equivariant: ClassVar[bool] = False

    def check_target(self, y: np.ndarray) -> None:  # noqa: B027
        """Raise DataError if the loss is not defined for the target `y`."""

    @abstractmethod
    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return the loss."""

    @abstractmethod
    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the derivative with respect to each prediction."""

    @abstractmethod
    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the second derivative for each prediction, or an upper bound of it.

        Shape (n,); for several outputs a bound that holds for all of them.
        """

    def saturated(self, y: np.ndarray, weight: np.ndarray) -> float:
        """Return the smallest loss that any predictions reach, from which a deviance counts."""
        return 0.0

    def conjugate(self, y: np.ndarray, dual: np.ndarray, weight: np.ndarray) -> float | None:
        """Return the convex conjugate at `dual`, or None where it is not available.

        With it, solvers stop on the duality gap instead of the optimality violation.
        """
        return None

    def dual_gauge(self, dual: np.ndarray, weight: np.ndarray) -> float:
        """Return what `dual` must be divided by, at least one, for a bounded conjugate's domain.

        One where no factor helps, or where none is needed.
        """
        return 1.0
