"""Schedules: when, and how much? Which steps change the support, and to what density.

A schedule maps progress in [0, 1] to a density (or any coefficient); its clock says at which
steps of training a change is due, and how far it is by then.
"""

from __future__ import annotations

__all__ = ["Cosine", "Cubic", "Linear", "OneShot", "Periodic", "Schedule"]

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from ..core.errors import OptionError
from ..core.named import Spelled
from ..core.options import check_whole


@dataclass(frozen=True)
class Periodic:
    """A change every so many steps, from one step to another.

    Parameters
    ----------
    every : int
        Steps between changes.
    start : int, default 0
        First step at which a change is due.
    stop : int, optional
        Last step at which one is due, whatever the period, so that a schedule reaches its
        final value; by default there is no end.

    Raises
    ------
    OptionError
        If `every` is below 1, `start` below 0 or `stop` before `start`.

    Examples
    --------
    >>> clock = Periodic(every=4, start=2, stop=12)
    >>> [step for step in range(20) if clock.due(step)]
    [2, 6, 10, 12]
    >>> clock.progress(7)
    0.5
    """

    every: int
    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        check_whole("every", self.every)
        check_whole("start", self.start, 0)
        if self.stop is not None:
            check_whole("stop", self.stop, self.start)

    def due(self, step: int) -> bool:
        """Return whether a change is due at a step of training, counted from 0."""
        if step < self.start or (self.stop is not None and step > self.stop):
            return False
        return (step - self.start) % self.every == 0 or step == self.stop

    def progress(self, step: int) -> float:
        """Return how far `step` is from start to stop, 0 before and 1 after.

        Raises
        ------
        OptionError
            If there is no end.
        """
        if self.stop is None:
            raise OptionError("progress needs an end: Periodic(every=..., stop=...)")
        if step >= self.stop:
            return 1.0
        return max(0, step - self.start) / (self.stop - self.start)


@dataclass(frozen=True)
class Schedule(Spelled, ABC):
    """From `initial` at progress 0 to `final` at progress 1, monotonically.

    Parameters
    ----------
    final : float, default 0.0
        Value at the end.
    initial : float, default 1.0
        Value at the start.
    clock : Periodic, optional
        The steps at which the value changes; :meth:`due` and :meth:`at_step` need it.
    """

    final: float = 0.0
    initial: float = 1.0
    clock: Periodic | None = field(default=None, kw_only=True)
    kind = "schedule"

    def __call__(self, progress: float) -> float:
        """Return the value at `progress`.

        Raises
        ------
        OptionError
            If `progress` is outside [0, 1].
        """
        if not 0 <= progress <= 1:
            raise OptionError(f"progress runs from 0 to 1, got {progress}")
        # The ends are exact, whatever the curve's rounding.
        if progress == 1:
            return self.final
        return self.final + (self.initial - self.final) * self.remaining(progress)

    def due(self, step: int) -> bool:
        """Return whether a change is due at a step of training, counted from 0.

        Raises
        ------
        OptionError
            If the schedule has no clock.
        """
        return self._running().due(step)

    def at_step(self, step: int) -> float:
        """Return the value at a step of training, counted from 0.

        Raises
        ------
        OptionError
            If the schedule has no clock, or one without an end.
        """
        return self(self._running().progress(step))

    def _running(self) -> Periodic:
        if self.clock is None:
            raise OptionError("a schedule needs a clock: clock=Periodic(every=100, stop=10_000)")
        return self.clock

    @abstractmethod
    def remaining(self, progress: float) -> float:
        """Return the share of the way still to go, 1 at progress 0 and 0 at 1."""


@dataclass(frozen=True)
class OneShot(Schedule):
    """All at once, when progress reaches `at` (default 0, the very start)."""

    at: float = 0.0
    name = "one-shot"

    def remaining(self, progress: float) -> float:
        """Return 1 before `at`, then 0."""
        return float(progress < self.at)


@dataclass(frozen=True)
class Linear(Schedule):
    """At constant speed."""

    name = "linear"

    def remaining(self, progress: float) -> float:
        """Return ``1 - progress``."""
        return 1 - progress


@dataclass(frozen=True)
class Cubic(Schedule):
    """Fast at first, slowly at the end.

    References
    ----------
    Zhu and Gupta, To prune, or not to prune (2017), eq. 1.
    """

    name = "cubic"

    def remaining(self, progress: float) -> float:
        """Return ``(1 - progress)^3``."""
        return (1 - progress) ** 3


@dataclass(frozen=True)
class Cosine(Schedule):
    """Slow at both ends."""

    name = "cosine"

    def remaining(self, progress: float) -> float:
        """Return ``(1 + cos(pi progress)) / 2``."""
        return (1 + math.cos(math.pi * progress)) / 2
