"""Running a model as in evaluation, and leaving it as it was."""

from __future__ import annotations

__all__ = ["evaluating"]

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models in evaluation mode; afterwards every module has the mode that it had.

    One mode for all would thaw what was frozen by itself, such as a batch norm in a model that
    trains.

    Parameters
    ----------
    *models : nn.Module
        Any modules.
    """
    before = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in before:
            module.training = training
