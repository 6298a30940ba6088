"""Logits a few positions at a time: those of a window are as wide as the vocabulary."""

from __future__ import annotations

__all__ = ["Logits", "LogitsBySlices"]

from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..parts.reasons import output_head
from .passes import HeadReachedError, as_written
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


class LogitsBySlices:
    """Ends a language model's passes before its output head, which then runs in slices.

    A first pass of few tokens goes to its end, and shows whether the model's logits are what its
    head gives, as they are not where they are capped or scaled. If they are not, every pass goes
    to its end.

    Parameters
    ----------
    model : nn.Module
        Watched while the context lasts.
    precision : Precision
        Of its forward passes.
    """

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        self._head = output_head(model)
        self._precision = precision
        self._given: Tensor | None = None
        self._vocabulary: int | None = None

    def __enter__(self) -> Self:
        hook = self._head.register_forward_pre_hook(self._reached) if self._head else None
        self._remove: Callable[[], None] = hook.remove if hook else lambda: None
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def prove(self, output: Any) -> None:
        """Compare what the model gave for the first pass with what its head gives by slices."""
        logits = output.logits[0]
        if self._given is None or self._given.shape[1] != len(logits):
            return
        found = self._sliced(self._given[0], logits.shape[-1])[:]
        if torch.equal(found, logits):
            self._vocabulary = logits.shape[-1]

    def logits(self, output: Any) -> Tensor | Logits:
        """Return the logits of all tokens but the last of the pass that has just ended."""
        if output is not None:
            whole: Tensor = output.logits[0, :-1]
            return whole
        assert self._given is not None
        assert self._vocabulary is not None
        return self._sliced(self._given[0, :-1], self._vocabulary)

    def _sliced(self, hidden: Tensor, vocabulary: int) -> Logits:
        assert self._head is not None
        return Logits(self._head, hidden, vocabulary, self._precision)

    def _reached(self, head: nn.Module, args: tuple[Any, ...]) -> None:
        given = args[0] if len(args) == 1 else None
        # Of one window, as they are passed one by one.
        whole = isinstance(given, Tensor) and given.dim() == 3 and len(given) == 1
        self._given = given if whole else None
        if whole and self._vocabulary is not None:
            raise HeadReachedError
