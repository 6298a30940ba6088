"""Seeing to it that a unit is visited with all of its calls, whatever order samples call in."""

from __future__ import annotations

__all__ = ["Ahead", "check_complete"]

from collections.abc import Callable, Sequence
from typing import Any

from ..core.errors import DataError
from .marks import marking
from .source import Source
from .units import Unit
from .walk import Walk


class Ahead:
    """What samples are going to call, where they have left out a unit so far.

    Parameters
    ----------
    source : Source
        The model.
    units : sequence of Unit
        All that are visited.
    samples : sequence
        Model inputs.
    run : callable
        Sends one sample through the whole model.
    """

    def __init__(
        self,
        source: Source,
        units: Sequence[Unit],
        samples: Sequence[Any],
        run: Callable[[Any], None],
    ) -> None:
        self._source, self._units = source, units
        self._samples, self._run = samples, run
        self._calls: dict[int, list[str]] = {}

    def out_of_order(self, unit: Unit, walks: Sequence[Walk]) -> str | None:
        """Return why a unit cannot be visited yet, None where all its calls are waiting.

        Parameters
        ----------
        unit : Unit
            What is to be visited.
        walks : sequence of Walk
            One for every sample.
        """
        for index, walk in enumerate(walks):
            if walk.halt is None or walk.halt.unit is unit:
                continue
            if unit.name in self._calls_left(index, walk.halt.unit):
                title = f"sample {index + 1} of {len(walks)}"
                return f"{title} calls {unit.name!r} in another order than the first"
        return None

    def _calls_left(self, index: int, waiting: Unit) -> list[str]:
        """Return what a sample calls from the unit on that it waits for."""
        if index not in self._calls:
            with self._source.on_demand(self._units), marking(self._units) as noting:
                self._run(self._samples[index])
            self._calls[index] = list(noting.into.given)
        calls = self._calls[index]
        return calls[calls.index(waiting.name) :] if waiting.name in calls else calls


def check_complete(walks: Sequence[Walk], done: set[str]) -> None:
    """Raise where a sample has come to a unit that was visited with one call of each.

    Parameters
    ----------
    walks : sequence of Walk
        One for every sample.
    done : set of str
        Names of units that were visited.

    Raises
    ------
    DataError
        If a unit was calibrated with a part of its calls.
    """
    for index, walk in enumerate(walks):
        name = walk.halt.unit.name if walk.halt is not None else ""
        if name in done:
            raise DataError(
                f"sample {index + 1} of {len(walks)} calls {name!r} again, which the first sample "
                "calls once and which has been calibrated with a part of its calls; put this "
                "sample first, or exclude the layers of this block"
            )
