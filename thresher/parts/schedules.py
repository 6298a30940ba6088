"""Schedules: when? A map from progress in [0, 1] to a density (or any coefficient)."""

from __future__ import annotations

__all__ = ["Cosine", "Cubic", "Linear", "OneShot", "Schedule"]

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..core.errors import OptionError


@dataclass(frozen=True)
class Schedule(ABC):
    """From `initial` at progress 0 to `final` at progress 1, monotonically.

    Parameters
    ----------
    final : float
        Value at the end.
    initial : float, default 1.0
        Value at the start.
    """

    final: float
    initial: float = 1.0

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

    @abstractmethod
    def remaining(self, progress: float) -> float:
        """Return the share of the way still to go, 1 at progress 0 and 0 at 1."""


@dataclass(frozen=True)
class OneShot(Schedule):
    """All at once, when progress reaches `at` (default 0, the very start)."""

    at: float = 0.0

    def remaining(self, progress: float) -> float:
        """Return 1 before `at`, then 0."""
        return float(progress < self.at)


@dataclass(frozen=True)
class Linear(Schedule):
    """At constant speed."""

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

    def remaining(self, progress: float) -> float:
        """Return ``(1 - progress)^3``."""
        return (1 - progress) ** 3


@dataclass(frozen=True)
class Cosine(Schedule):
    """Slow at both ends."""

    def remaining(self, progress: float) -> float:
        """Return ``(1 + cos(pi progress)) / 2``."""
        return (1 + math.cos(math.pi * progress)) / 2
