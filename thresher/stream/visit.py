"""A visit: one unit, while every sample waits before it."""

from __future__ import annotations

__all__ = ["Visit"]

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from .collect import Call, Stage
from .dense import DenseNotes
from .passes import first_output
from .pauses import pausing
from .proof import Order
from .units import Unit


class Samples(Protocol):
    """What sends samples through units, as :class:`~thresher.stream.stream.Stream` does."""

    order: Order

    def rehearse(self, unit: Unit, most: int | None) -> None:
        """Run a unit on copies of what waits before it."""

    def may_pause(self, unit: Unit, stages: Sequence[Stage]) -> bool:
        """Return whether samples may wait inside a unit."""

    def calls(self, unit: Unit, stage: Stage) -> Iterator[Call]:
        """Send samples on to where a stage begins, and yield what its layers are given."""


@dataclass
class Visit:
    """One unit, with its weights and with every sample waiting before it.

    Parameters
    ----------
    index : int
        Its place in the order in which units run.
    unit : Unit
        What is visited. It may be changed; the samples then go on through what it has become.
    dense : DenseNotes or None
        What the dense path gave the unit's layers, where there is one.
    """

    index: int
    unit: Unit
    _stream: Samples = field(repr=False)
    dense: DenseNotes | None = None
    _until_left: ExitStack = field(default_factory=ExitStack, repr=False)

    @property
    def alone(self) -> bool:
        """Whether the unit runs by itself, and not in passes of the whole model."""
        return self.unit.name not in self._stream.order.whole

    def run(self, most: int | None = None) -> None:
        """Send every sample through the unit, to be watched; they stay before it.

        A watcher that has seen enough of a sample raises
        :class:`~thresher.stream.passes.EnoughSeenError`.

        Parameters
        ----------
        most : int, optional
            How many samples to send, the first ones; by default all.
        """
        self._stream.rehearse(self.unit, most)

    def pause_at(self, stages: Sequence[Stage]) -> bool:
        """Have samples wait at every stage, if they may, so that no part runs more than once.

        From then on they cannot be sent through the unit from its beginning again. They wait
        with what the unit has computed until there, several times their state before it: not
        where states are put on disk, or this would take a quarter of the memory that is free.

        Parameters
        ----------
        stages : sequence of Stage
            All of the unit's, in the order in which they will be asked for.

        Returns
        -------
        bool
            Whether they will.
        """
        if not self.alone or not self._stream.may_pause(self.unit, stages):
            return False
        self._until_left.enter_context(pausing(self.unit, stages))
        return True

    def calls(self, stage: Stage) -> Iterator[Call]:
        """Send every sample on to where a stage begins, and yield what its layers are given.

        Raises
        ------
        DataError
            If a sample does not come there.
        """
        return self._stream.calls(self.unit, stage)

    def outputs(self, most: int | None = None) -> list[torch.Tensor]:
        """Send samples through the unit as it is, and return its first output each time it ran.

        Parameters
        ----------
        most : int, optional
            How many samples to send, the first ones; by default all.
        """
        found: list[torch.Tensor] = []

        def note(module: Any, args: Any, output: Any) -> None:
            first = first_output(output)
            if isinstance(first, torch.Tensor):
                found.append(first.detach().clone())

        handle = self.unit.module.register_forward_hook(note)
        try:
            self.run(most)
        finally:
            handle.remove()
        return found
