"""Times to an event: the partial likelihood, and how well risks order the events."""

from __future__ import annotations

__all__ = ["Cox", "concordance"]

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import DataError
from ...core.options import check_choice
from .base import Datafit


class _Ties(NamedTuple):
    """The events in the order of their times, and what they weigh.

    Parameters
    ----------
    level : array of int of shape (n,)
        Place of each sample's time among the distinct times.
    dead : array of bool of shape (n,)
        Whether the event was seen, and the sample weighs something.
    at : array of int of shape (events,)
        Level of each event.
    left_out : array of shape (events,)
        Which share of the risk of tied events each event leaves out.
    weight : array of shape (events,)
        Mean weight of the events at the same time.
    """

    level: np.ndarray
    dead: np.ndarray
    at: np.ndarray
    left_out: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Cox(Datafit):
    """Negative log partial likelihood of proportional hazards.

    The target is times signed by the event: ``+time`` where the event was seen, ``-time`` where
    the sample was censored (``-0.0`` at time zero). Also taken are columns ``(time, event)`` and
    structured arrays with a boolean field for the event and one for the time. An intercept does
    not change the loss, but fitting one lets the solvers centre the columns, which is faster.

    Parameters
    ----------
    ties : {"breslow", "efron"}, default "breslow"
        How events at the same time share the risk: all meet the whole of it, or each after the
        first a part less. Efron's is nearer to the exact likelihood where ties are many.

    References
    ----------
    Cox, Regression models and life-tables (1972); Breslow, discussion of it; Efron, The
    efficiency of Cox's likelihood function for censored data (1977).
    """

    ties: str = "breslow"

    def __post_init__(self) -> None:
        check_choice("ties", self.ties, ("breslow", "efron"))

    def target(self, y: Any) -> Any:
        """Return times signed by the event.

        Raises
        ------
        DataError
            If fields or columns do not tell times from events, a time is negative, or whole
            numbers hold a zero, which has no sign.
        """
        array = np.asarray(y)
        if array.dtype.names is not None:
            return _signed(*_fields(array))
        if array.ndim == 2 and array.shape[1] == 2:
            return _signed(array[:, 0], array[:, 1])
        if array.dtype.kind in "iub" and np.any(array == 0):
            raise DataError(
                "a survival time of zero has no sign in whole numbers; pass columns (time, event)"
            )
        return y

    def degeneracy(self, y: np.ndarray, weight: np.ndarray, intercept: bool) -> str | None:
        """Say that no event was seen."""
        if np.any(_seen(y) & (weight > 0)):
            return None
        return "no event was seen: every survival time that weighs something is censored (negative)"

    def value(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> float:
        """Return the weighted sum over the events of ``log(risk) - prediction``."""
        ties = self._ties(y, weight)
        at_risk, _ = _logarithms(ties, prediction, weight)
        dead = ties.dead
        return float(ties.weight @ at_risk - weight[dead] @ prediction[dead])

    def gradient(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the derivative: expected less observed events."""
        return self.curvature(y, prediction, weight) - weight * _seen(y)

    def curvature(self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the expected events, the positive part of the diagonal of the Hessian.

        They bound the whole Hessian.
        """
        _, hazard = _logarithms(self._ties(y, weight), prediction, weight)
        return weight * np.exp(prediction + hazard)

    def score(
        self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray, null: np.ndarray | None
    ) -> float:
        """Return the :func:`concordance`, as survival packages do."""
        return concordance(y, prediction, weight / weight.max())  # equal ones count pairs

    def cumulative_hazard(
        self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the hazard of a sample of prediction zero, summed up to every time.

        Parameters
        ----------
        y, prediction, weight : array of shape (n,)
            Target, log hazard ratios and weights of the samples.

        Returns
        -------
        times : array of shape (distinct times,)
            Ascending; those of censored samples too.
        hazard : array of the same shape
            At and after each time, until the next.
        """
        ties = self._ties(y, weight)
        at_risk, _ = _logarithms(ties, prediction, weight)
        times = np.unique(np.abs(y))
        steps = np.bincount(ties.at, ties.weight * np.exp(-at_risk), minlength=len(times))
        return times, np.cumsum(steps)

    def _ties(self, y: np.ndarray, weight: np.ndarray) -> _Ties:
        times, level = np.unique(np.abs(y), return_inverse=True)
        dead = _seen(y) & (weight > 0)
        at = np.sort(level[dead])
        counts = np.bincount(at, minlength=len(times))
        total = np.bincount(level[dead], weights=weight[dead], minlength=len(times))
        left_out = np.zeros(len(at))
        if self.ties == "efron":
            first = np.concatenate([[0], np.cumsum(counts)[:-1]])
            left_out = (np.arange(len(at)) - first[at]) / counts[at]
        return _Ties(level, dead, at, left_out, total[at] / counts[at])


def _logarithms(
    ties: _Ties, prediction: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms of the risk at each event and of each sample's cumulative hazard.

    Of logarithms, as a risk that is nothing beside the largest still counts once that has left.
    """
    level, dead, at, left_out, _ = ties
    shape = int(level.max()) + 1
    risk = np.full((2, shape), -np.inf)  # of those who live on, and of those whose event it is
    with np.errstate(divide="ignore"):
        np.logaddexp.at(risk, (dead.astype(int), level), prediction + np.log(weight))
    after = np.logaddexp.accumulate(np.logaddexp(*risk)[::-1])[::-1]
    later = np.append(after[1:], -np.inf)
    others = np.logaddexp(later, risk[0])
    met = np.log1p(-left_out)
    at_risk = np.logaddexp(others[at], met + risk[1][at])
    hazard, own = np.full(shape, -np.inf), np.full(shape, -np.inf)
    np.logaddexp.at(hazard, at, np.log(ties.weight) - at_risk)
    np.logaddexp.at(own, at, np.log(ties.weight) + met - at_risk)
    before = np.logaddexp.accumulate(hazard)
    # Who dies in a tie meets less of its hazard than who lives through it.
    dying = np.logaddexp(np.concatenate([[-np.inf], before[:-1]]), own)
    return at_risk, np.where(dead, dying[level], before[level])


def _seen(y: np.ndarray) -> np.ndarray:
    return ~np.signbit(y)


def _fields(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return times and events of a structured array."""
    names = array.dtype.names or ()
    events = [name for name in names if array.dtype[name].kind == "b"]
    times = [name for name in names if array.dtype[name].kind in "iuf"]
    if len(events) != 1 or len(times) != 1:
        raise DataError(
            "a structured survival target needs one boolean field, the event, and one of numbers, "
            f"the time; got {array.dtype}"
        )
    return array[times[0]], array[events[0]]


def _signed(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    time, event = np.asarray(time, dtype=float), np.asarray(event, dtype=float)
    if not np.all((event == 0) | (event == 1)):
        raise DataError("events, the second column of a survival target, must be 0 or 1")
    if np.any(time < 0):
        raise DataError(f"survival times must not be negative, got {float(time.min())}")
    return np.where(event == 1, time, -time)


def concordance(y: np.ndarray, risk: np.ndarray, sample_weight: Any = None) -> float:
    """Return how often the sample of higher risk has its event first (Harrell's C).

    Parameters
    ----------
    y : array of shape (n,)
        Times, signed by the event as :class:`Cox` takes them.
    risk : array of shape (n,)
        Log hazard ratios.
    sample_weight : array of shape (n,), optional
        A pair weighs the product of its samples' weights.

    Returns
    -------
    float
        Share of the comparable pairs in the right order, ties of risk counting half; 0.5 for
        no better than chance, NaN without comparable pairs.

    References
    ----------
    Harrell, Califf, Pryor, Lee and Rosati, Evaluating the yield of medical tests (1982).
    """
    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    time, seen = np.abs(y), _seen(y)
    right = total = 0.0
    for i in np.flatnonzero(seen & (weight > 0)):
        later = (time > time[i]) | ((time == time[i]) & ~seen)
        pair = weight[i] * weight[later]
        right += float(pair @ ((risk[i] > risk[later]) + 0.5 * (risk[i] == risk[later])))
        total += float(pair.sum())
    return right / total if total > 0 else np.nan
