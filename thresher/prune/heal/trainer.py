"""Holding zeros in a loop of the Trainer of transformers."""

from __future__ import annotations

__all__ = ["HoldZeros"]

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import TrainerCallback

from ...core.errors import OptionError
from .hold import Hold, hold

T = TypeVar("T")


class HoldZeros(TrainerCallback):
    """Keep the zeros of a pruned model while a transformers ``Trainer`` trains it.

    ``Trainer(..., callbacks=[thresher.HoldZeros()])``; see
    :func:`~thresher.prune.heal.hold.hold`, also for what is raised when training begins.
    """

    def __init__(self) -> None:
        self._hold: Hold | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Hold the zeros that the model has now."""
        self.on_train_end(args, state, control)
        self._hold = hold(_only(given, nn.Module), _only(given, torch.optim.Optimizer))

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
