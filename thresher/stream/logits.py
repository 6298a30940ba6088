"""Logits a few positions at a time: those of a window are as wide as the vocabulary."""

from __future__ import annotations

__all__ = ["Logits", "shortened"]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .passes import as_written
from .precision import Precision


class Logits:
    """The logits of a window, computed from what its positions hand to the output head.

    Parameters
    ----------
    head : nn.Module
        Computes logits.
    hidden : Tensor of shape (positions, width)
        What it is given.
    vocabulary : int
        How many logits it gives a position.
    precision : Precision
        Of the forward pass.
    """

    def __init__(
        self, head: nn.Module, hidden: Tensor, vocabulary: int, precision: Precision
    ) -> None:
        self._head, self._hidden, self._precision = head, hidden, precision
        self.shape = torch.Size([len(hidden), vocabulary])
        self.device = hidden.device

    def __getitem__(self, positions: slice) -> Tensor:
        with torch.no_grad(), as_written(), self._precision.rounding(self.device):
            # Its own hooks end the passes that reach it.
            logits: Tensor = self._head.forward(self._hidden[positions].unsqueeze(0))[0]
        return logits

    def without_last(self) -> Logits:
        """Return those of all positions but the last."""
        return Logits(self._head, self._hidden[:-1], self.shape[-1], self._precision)

    def slices(self, multiple: int) -> Iterator[Tensor]:
        """Yield the logits of some positions at a time, about half as large as the head's weights.

        Parameters
        ----------
        multiple : int
            Of which all slices but the last hold one.
        """
        step = multiple * max(1, self._hidden.shape[-1] // (2 * multiple))
        for start in range(0, len(self._hidden), step):
            yield self[start : start + step]


@contextmanager
def shortened(head: nn.Module) -> Iterator[list[Tensor]]:
    """Note what an output head is given, and give it the last position alone.

    Yields
    ------
    list of Tensor of shape (positions, width)
        One for every call, of the first row of its batch.
    """
    given: list[Tensor] = []

    def shorten(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        given.append(inputs[0][0])
        return (inputs[0][:, -1:], *inputs[1:])

    handle = head.register_forward_pre_hook(shorten)
    try:
        yield given
    finally:
        handle.remove()
