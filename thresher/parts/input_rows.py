"""Rows of a layer's input themselves, for what no sum of theirs can tell."""

from __future__ import annotations

__all__ = ["InputRows"]

from typing import ClassVar

import torch

from .moments import Moment


class InputRows(Moment):
    """Rows of input, evenly spaced over all that were seen, in float32.

    Attributes
    ----------
    most : int
        As many rows are kept at most, and where there are enough at least half as many.
    """

    most: ClassVar[int] = 4096

    def __init__(self) -> None:
        super().__init__()
        self._every = 1

    def zeros(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a tensor without rows."""
        return (inputs[..., :0, :].clone(),)

    def add(self, inputs: torch.Tensor) -> None:
        """Keep every so many rows; where they become too many, every other one of them."""
        first = -int(self.count) % self._every
        rows = torch.cat([self.sums[0], inputs[..., first :: self._every, :]], dim=-2)
        while rows.shape[-2] > self.most:
            rows = rows[..., ::2, :]
            self._every *= 2
        self.sums = (rows.clone() if rows.shape[-2] < self.sums[0].shape[-2] else rows,)

    def tensors(self) -> list[torch.Tensor]:
        """Return the number of rows seen: rows of other data are other rows."""
        return [self.count]

    @property
    def value(self) -> torch.Tensor:
        """The rows, shape (..., rows, columns)."""
        return self.sums[0]
