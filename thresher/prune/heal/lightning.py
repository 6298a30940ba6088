"""Holding zeros in a loop of Lightning's Trainer."""

from __future__ import annotations

__all__ = ["hold_in_lightning"]

from typing import Any

from ...core.extras import naming_the_extra
from ..tracking import log_record, record_in
from .hold import Hold, hold


def hold_in_lightning() -> Any:
    """Return what keeps the zeros of a pruned model while Lightning trains it, and logs its record.

    ``Trainer(..., callbacks=[thresher.hold_in_lightning()])``; see
    :func:`~thresher.prune.heal.hold.hold`, also for what is raised when training begins. The
    loggers of the trainer get the record that :func:`thresher.prune` left on the module, or on
    what is in it.

    Returns
    -------
    lightning.pytorch.Callback
        For one trainer at a time.

    Raises
    ------
    MissingPackageError
        If Lightning is not installed.
    """
    with naming_the_extra():
        from lightning.pytorch.callbacks import LambdaCallback
    held: list[Hold] = []

    def let_go(*_: Any) -> None:
        while held:
            held.pop().remove()

    def begin(trainer: Any, module: Any) -> None:
        let_go()
        held.append(hold(module, *trainer.optimizers))
        record = record_in(module)
        if record is not None:
            log_record(record, *trainer.loggers)

    return LambdaCallback(on_train_start=begin, on_train_end=let_go, on_exception=let_go)
