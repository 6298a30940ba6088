"""Times to an event: the partial likelihood, and how well risks order the events."""

from __future__ import annotations

__all__ = ["Cox", "concordance"]

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import DataError, OptionError
from ...core.options import check_choice
from .base import Datafit
from .risk_sets import Intervals


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
    spans : Intervals, optional
        The levels before its own exit at which each sample is at risk, its own included for those
        who live through it; all up to there by default.
    """

    level: np.ndarray
    dead: np.ndarray
    at: np.ndarray
    left_out: np.ndarray
    weight: np.ndarray
    spans: Intervals | None = None


@dataclass(frozen=True, eq=False)
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
    entry : array of shape (n,), optional
        Time after which each of these samples is at risk (left truncation), below its time; of
        one person who changes, several samples follow each other.
    strata : array of shape (n,), optional
        Labels of groups of these samples. Each has a hazard of its own, and its events meet the
        risk of its own samples alone.

    Raises
    ------
    OptionError
        If `ties` is unknown, or `entry` or `strata` is no vector.
    DataError
        In a fit, if there are more or fewer entries or strata than samples, or an entry is not
        below its time.

    Notes
    -----
    Entries and strata are those of the samples of a fit, in their order; folds of
    ``SparseGLMCV`` take them along. For the score of other samples, set theirs.

    References
    ----------
    Cox, Regression models and life-tables (1972); Breslow, discussion of it; Efron, The
    efficiency of Cox's likelihood function for censored data (1977).
    """

    ties: str = "breslow"
    entry: Any = None
    strata: Any = None

    def __post_init__(self) -> None:
        check_choice("ties", self.ties, ("breslow", "efron"))
        for name in ("entry", "strata"):
            given = getattr(self, name)
            if given is None:
                continue
            array = np.asarray(given, dtype=float if name == "entry" else None)
            if array.ndim != 1:
                raise OptionError(f"{name} must be a vector, one for each sample, got {given!r}")
            object.__setattr__(self, name, array)

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

    def check_target(self, y: np.ndarray) -> None:
        """Raise DataError unless there is an entry below each time, and a stratum."""
        for name, known in (("entry", self.entry), ("strata", self.strata)):
            if known is not None and len(known) != len(y):
                raise DataError(
                    f"{name} of Cox has {len(known)} entries for {len(y)} samples; give those of "
                    "the samples at hand"
                )
        if self.entry is not None:
            wrong = np.flatnonzero(~(self.entry < np.abs(y)))
            if len(wrong):
                k = wrong[0]
                raise DataError(
                    f"entry must be below the time of each sample, got {self.entry[k]} with time "
                    f"{abs(y[k])} at row {k}"
                )

    def of_samples(self, index: np.ndarray) -> Cox:
        """Return the loss of some samples, whose entries and strata it takes along."""
        return replace(
            self,
            entry=None if self.entry is None else self.entry[index],
            strata=None if self.strata is None else self.strata[index],
        )

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
        weight = weight / weight.max()  # equal ones count pairs
        return concordance(y, prediction, weight, self.entry, self.strata)

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

        Raises
        ------
        OptionError
            If strata have hazards of their own.
        """
        if self.strata is not None:
            raise OptionError("strata have hazards of their own; ask for that of one at a time")
        ties = self._ties(y, weight)
        at_risk, _ = _logarithms(ties, prediction, weight)
        times = np.unique(np.abs(y))
        steps = np.bincount(ties.at, ties.weight * np.exp(-at_risk), minlength=len(times))
        return times, np.cumsum(steps)

    def _ties(self, y: np.ndarray, weight: np.ndarray) -> _Ties:
        time = np.abs(y)
        plain = self.entry is None and self.strata is None
        if plain:
            level, first = np.unique(time, return_inverse=True)[1], None
        else:
            level, first = _levels(time, self.entry, self.strata)
        places = int(level.max()) + 1
        dead = _seen(y) & (weight > 0)
        at = np.sort(level[dead])
        counts = np.bincount(at, minlength=places)
        total = np.bincount(level[dead], weights=weight[dead], minlength=places)
        left_out = np.zeros(len(at))
        if self.ties == "efron":
            before = np.concatenate([[0], np.cumsum(counts)[:-1]])
            left_out = (np.arange(len(at)) - before[at]) / counts[at]
        spans = None if first is None else Intervals(first, level + ~dead, places)
        return _Ties(level, dead, at, left_out, total[at] / counts[at], spans)


def _levels(
    time: np.ndarray, entry: np.ndarray | None, strata: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return places of times, those of a stratum together, and the first place after each entry."""
    groups = np.zeros(len(time)) if strata is None else strata
    level, first = np.empty(len(time), dtype=int), np.empty(len(time), dtype=int)
    start = 0
    for label in np.unique(groups):
        own = np.flatnonzero(groups == label)
        times, places = np.unique(time[own], return_inverse=True)
        level[own] = start + places
        first[own] = start
        if entry is not None:
            first[own] += np.searchsorted(times, entry[own], side="right")
        start += len(times)
    return level, first


def _logarithms(
    ties: _Ties, prediction: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms of the risk at each event and of each sample's cumulative hazard.

    Of logarithms, as a risk that is nothing beside the largest still counts once that has left.
    """
    level, dead, at, left_out, _, spans = ties
    shape = int(level.max()) + 1
    with np.errstate(divide="ignore"):
        logs = prediction + np.log(weight)
    risk = np.full((2, shape), -np.inf)  # of those who live on, and of those whose event it is
    np.logaddexp.at(risk, (dead.astype(int), level), logs)
    if spans is None:
        after = np.logaddexp.accumulate(np.logaddexp(*risk)[::-1])[::-1]
        others = np.logaddexp(np.append(after[1:], -np.inf), risk[0])
    else:
        others = spans.at_places(logs)
    met = np.log1p(-left_out)
    at_risk = np.logaddexp(others[at], met + risk[1][at])
    hazard, own = np.full(shape, -np.inf), np.full(shape, -np.inf)
    np.logaddexp.at(hazard, at, np.log(ties.weight) - at_risk)
    np.logaddexp.at(own, at, np.log(ties.weight) + met - at_risk)
    if spans is None:
        before = np.logaddexp.accumulate(hazard)
        through = np.where(dead, np.concatenate([[-np.inf], before[:-1]])[level], before[level])
    else:
        through = spans.of_members(hazard, len(level))
    # Who dies in a tie meets less of its hazard than who lives through it.
    return at_risk, np.where(dead, np.logaddexp(through, own[level]), through)


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


def concordance(
    y: np.ndarray,
    risk: np.ndarray,
    sample_weight: Any = None,
    entry: np.ndarray | None = None,
    strata: np.ndarray | None = None,
) -> float:
    """Return how often the sample of higher risk has its event first (Harrell's C).

    Parameters
    ----------
    y : array of shape (n,)
        Times, signed by the event as :class:`Cox` takes them.
    risk : array of shape (n,)
        Log hazard ratios.
    sample_weight : array of shape (n,), optional
        A pair weighs the product of its samples' weights.
    entry : array of shape (n,), optional
        Times after which samples are at risk: who enters after an event says nothing of it.
    strata : array of shape (n,), optional
        Labels of groups, within which alone samples are compared.

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
        if entry is not None:
            later &= entry < time[i]
        if strata is not None:
            later &= strata == strata[i]
        pair = weight[i] * weight[later]
        right += float(pair @ ((risk[i] > risk[later]) + 0.5 * (risk[i] == risk[later])))
        total += float(pair.sum())
    return right / total if total > 0 else np.nan
