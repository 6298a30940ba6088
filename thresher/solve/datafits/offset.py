"""A loss whose predictions have a known part, such as the logarithm of an exposure."""

from __future__ import annotations

__all__ = ["Offset", "checked_offset", "known_part", "with_offset"]

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...core.errors import DataError, OptionError
from .base import Datafit


@dataclass(frozen=True, eq=False)
class Offset(Datafit):
    """A loss of ``X w + intercept + offset``.

    Parameters
    ----------
    loss : Datafit
        The loss, with a derivative and finite everywhere. One that depends on target less
        prediction alone needs no offset: take it from the target.
    offset : array of shape (n,) or (n, outputs)
        What is known of the predictions of these samples.

    Raises
    ------
    OptionError
        If the loss has a kink, or is infinite at some predictions.
    """

    # Its peak lies elsewhere for each sample.
    bounded_curvature: ClassVar[bool] = False

    loss: Datafit
    offset: np.ndarray

    def __post_init__(self) -> None:
        if not (self.loss.smooth and self.loss.finite):
            raise OptionError(
                f"{type(self.loss).__name__} takes no offset, as it has a kink or is infinite at "
                "some predictions"
            )

    @property
    def multiple_outputs(self) -> bool:  # type: ignore[override]
        """Whether predictions are matrices."""
        return self.loss.multiple_outputs

    @property
    def has_conjugate(self) -> bool:
        """Whether the conjugate of the loss is known."""
        return self.loss.has_conjugate

    def check_target(self, y: np.ndarray) -> None:
        """Raise DataError if the loss is not defined for the target `y`."""
        self.loss.check_target(y)

    def degeneracy(self, y: np.ndarray, weight: np.ndarray, intercept: bool) -> str | None:
        """Say why a fit of the target has no end; None if it has one."""
        return self.loss.degeneracy(y, weight, intercept)

    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return the loss."""
        return self.loss.value(y, prediction + self.offset, weight)

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the derivative with respect to each prediction."""
        return self.loss.gradient(y, prediction + self.offset, weight)

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the second derivative for each prediction, or an upper bound of it."""
        return self.loss.curvature(y, prediction + self.offset, weight)

    def saturated(self, y: np.ndarray, weight: np.ndarray) -> float:
        """Return the smallest loss that any predictions reach."""
        return self.loss.saturated(y, weight)

    def conjugate(self, y: np.ndarray, dual: np.ndarray, weight: np.ndarray) -> float | None:
        """Return the convex conjugate at `dual`: that of the loss less the offset's part."""
        found = self.loss.conjugate(y, dual, weight)
        return None if found is None else found - float(np.sum(dual * self.offset))

    def dual_gauge(self, dual: np.ndarray, weight: np.ndarray) -> float:
        """Return what `dual` must be divided by for a bounded conjugate's domain."""
        return self.loss.dual_gauge(dual, weight)

    def mean(self, prediction: np.ndarray) -> np.ndarray:
        """Return what the linear predictions and the offset say of the target."""
        return self.loss.mean(prediction + self.offset)

    def score(
        self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray, null: np.ndarray | None
    ) -> float:
        """Return the score of the loss, the offset known to the best constant as well."""
        known = None if null is None else null + self.offset
        return self.loss.score(y, prediction + self.offset, weight, known)

    def of_samples(self, index: np.ndarray) -> Offset:
        """Return the loss of some samples, whose offsets it takes along."""
        return Offset(self.loss, self.offset[index])


def with_offset(y: np.ndarray, loss: Datafit, offset: Any) -> tuple[np.ndarray, Datafit]:
    """Return the target and the loss of predictions that have a known part.

    Parameters
    ----------
    y : array of shape (n,) or (n, outputs)
        Target.
    loss : Datafit
        Loss without the offset.
    offset : array of the shape of `y`
        What is known of each prediction.

    Raises
    ------
    DataError
        If the offset has another shape than the target, or is not finite.
    OptionError
        If the loss takes none.
    """
    known = checked_offset(offset, y.shape)
    if loss.shift_equivariant:
        return y - known, loss
    return y, Offset(loss, known)


def checked_offset(offset: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return an offset as an array of a shape.

    Raises
    ------
    DataError
        If it has another shape, or is not finite.
    """
    known = np.asarray(offset, dtype=float)
    if known.shape != shape:
        raise DataError(
            f"offset has shape {known.shape}, predictions have {shape}; give one number each"
        )
    if not np.all(np.isfinite(known)):
        raise DataError(
            "offset holds NaN or infinite values; the logarithm of an exposure needs exposures "
            "above zero"
        )
    return known


def known_part(loss: Datafit, offset: Any, exposure: Any, count: int) -> Any:
    """Return what is known of the predictions: the offset, and the logarithm of the exposure.

    Parameters
    ----------
    loss : Datafit
        The loss.
    offset : array of shape (count,) or None
        As it was given; checked by :func:`checked_offset`.
    exposure : array of shape (count,) or None
        Time, area or number of trials over which each target was gathered.
    count : int
        How many samples there are.

    Raises
    ------
    OptionError
        If there is an exposure and the mean of the loss is no exponential.
    DataError
        If the exposure has another shape, or holds numbers that are not finite and above zero.
    """
    if exposure is None:
        return offset
    if not loss.log_link:
        raise OptionError(
            f"{type(loss).__name__} takes no exposure, as its mean is not the exponential of the "
            "prediction; Poisson, Gamma and Tweedie do"
        )
    known = np.asarray(exposure, dtype=float)
    if known.shape != (count,):
        raise DataError(f"exposure has shape {known.shape}, for {count} samples; give one each")
    wrong = np.flatnonzero(~((known > 0) & (known < np.inf)))
    if len(wrong):
        raise DataError(
            f"exposures must be finite and above zero, got {known[wrong[0]]} at row {wrong[0]}; "
            "leave out samples that were never exposed"
        )
    logs = np.log(known)
    return logs if offset is None else logs + checked_offset(offset, known.shape)
