"""Holding zeros in a loop of the Trainer of transformers."""

from __future__ import annotations

__all__ = ["HoldZeros"]

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import TrainerCallback

from ...core.errors import OptionError
from ..tracking import log_record, record_in
from .hold import Hold, hold

T = TypeVar("T")


class HoldZeros(TrainerCallback):
    """Keep the zeros of a pruned model while a transformers ``Trainer`` trains it.

    ``Trainer(..., callbacks=[thresher.HoldZeros()])``; see
    :func:`~thresher.prune.heal.hold.hold`, also for what is raised when training begins.

    Parameters
    ----------
    log : callable, optional
        Takes the numbers of the model's record when training begins, if it has a record:
        ``trainer.add_callback(thresher.HoldZeros(trainer.log))`` shows them wherever the trainer
        reports to. None shows them nowhere.
    """

    def __init__(self, log: Callable[[dict[str, float]], Any] | None = None) -> None:
        self._hold: Hold | None = None
        self._log = log

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Hold the zeros that the model has now, and log its record."""
        self.on_train_end(args, state, control)
        model = _only(given, nn.Module)
        self._hold = hold(model, _only(given, torch.optim.Optimizer))
        record = record_in(model)
        if self._log is not None and record is not None:
            log_record(record, self._log)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Let go of them."""
        if self._hold is not None:
            self._hold.remove()
            self._hold = None


def _only(given: Mapping[str, Any], kind: type[T]) -> T:
    """Return what was given of a kind: what Trainer calls it, it may call otherwise one day."""
    found = {id(value): value for value in given.values() if isinstance(value, kind)}
    if len(found) != 1:
        raise OptionError(
            f"this transformers gives its callbacks {len(found)} objects of {kind.__name__} when "
            "training begins, so that zeros cannot be held; train in a loop of your own, with "
            "thresher.hold(model, optimizer)"
        )
    return next(iter(found.values()))
