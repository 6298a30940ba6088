"""What a datafit must answer so that the solvers can use it."""

from __future__ import annotations

__all__ = ["Datafit"]

from abc import ABC, abstractmethod
from typing import Any, ClassVar

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
    #: Whether the mean is the exponential of the prediction, so that an exposure multiplies it.
    log_link: ClassVar[bool] = False
    #: Whether :meth:`given_others` tells the loss of one output beside those of the others.
    parted: ClassVar[bool] = False
    #: Whether a constant that is added to all outputs changes nothing, so that it says nothing
    #: where intercepts lie together.
    of_differences: ClassVar[bool] = False

    def target(self, y: Any) -> Any:
        """Return a target as users have it in the form that the other methods take."""
        return y

    def check_target(self, y: np.ndarray) -> None:  # noqa: B027
        """Raise DataError if the loss is not defined for the target `y`."""

    def degeneracy(self, y: np.ndarray, weight: np.ndarray, intercept: bool) -> str | None:
        """Say why a fit of the target has no end, such as a single class; None if it has one.

        Parameters
        ----------
        y : array of shape (n,) or (n, outputs)
            Target.
        weight : array of shape (n,)
            Sample weights; what weighs nothing does not count.
        intercept : bool
            Whether a constant is fitted: without one, coefficients under a penalty may end.
        """
        return None

    def in_units(self, y: np.ndarray, weight: np.ndarray) -> Datafit:
        """Return the loss with what it leaves open set by the spread of the target."""
        return self

    def sharpened(
        self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray
    ) -> Datafit | None:
        """Return a closer approximation if residuals ask for one, None if this is close enough."""
        return None

    def given_others(self, prediction: np.ndarray, output: int) -> Datafit:
        """Return the loss of one output's predictions, up to a constant, the others held.

        Parameters
        ----------
        prediction : array of shape (n, outputs)
            Predictions of all outputs.
        output : int
            Which one moves. Its target is that column of the target.
        """
        raise NotImplementedError(f"{type(self).__name__} is not parted")

    def of_samples(self, index: np.ndarray) -> Datafit:
        """Return the loss of some samples: itself, but where it knows something of each."""
        return self

    @property
    def exact(self) -> Datafit:
        """The loss that this one approximates, by which predictions are judged."""
        return self

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

    def mean(self, prediction: np.ndarray) -> np.ndarray:
        """Return what linear predictions say of the target: themselves, but for other links."""
        return prediction

    def score(
        self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray, null: np.ndarray | None
    ) -> float:
        """Return the share of the deviance that predictions explain (D squared).

        Parameters
        ----------
        y : array of shape (n,) or (n, outputs)
            Target.
        prediction : array of the same shape
            Linear predictions.
        weight : array of shape (n,)
            Sample weights that sum to one.
        null : array of the same shape or None
            Predictions of the best constant; None where some constant is perfect.

        Returns
        -------
        float
            1 at best, 0 for the best constant, below 0 for what is worse. Where a constant is
            perfect, 1 for predictions that are too and 0 for others, as in scikit-learn.

        References
        ----------
        Hastie, Tibshirani and Wainwright, Statistical learning with sparsity (2015), equation
        3.11.
        """
        least = self.saturated(y, weight)
        reached = self.value(y, prediction, weight) - least
        constant = 0.0 if null is None else self.value(y, null, weight) - least
        if constant <= 0:
            return float(reached <= 0)
        return 1.0 - reached / constant

    def saturated(self, y: np.ndarray, weight: np.ndarray) -> float:
        """Return the smallest loss that any predictions reach, from which a deviance counts."""
        return 0.0

    @property
    def has_conjugate(self) -> bool:
        """Whether the class tells its convex conjugate."""
        return type(self).conjugate is not Datafit.conjugate

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
