"""What every pattern is."""

from __future__ import annotations

__all__ = ["Pattern"]

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from ...core.errors import LayerError
from ...core.named import Spelled


class Pattern(Spelled, ABC):
    """Base class of patterns."""

    kind = "pattern"

    @property
    def density(self) -> float | None:
        """The density that the pattern itself implies, such as 0.5 for 2:4; by default none."""
        return None

    @property
    def column_step(self) -> int | None:
        """Columns that must be chosen together: the mask may be chosen in blocks of a multiple.

        None when every column is needed at once; by default 1.
        """
        return 1

    @property
    def swap_width(self) -> int | None:
        """Aligned columns within which a kept and a removed weight of a row may trade places.

        0, the default, means the whole row, None that no trade is allowed.
        """
        return 0

    @abstractmethod
    def quantum(self, shape: Sequence[int]) -> int:
        """Return the smallest step, in weights, between two allowed counts.

        Parameters
        ----------
        shape : sequence of int
            Matrix shape (..., rows, columns).

        Returns
        -------
        int
            Every allowed count is a multiple of it.

        Raises
        ------
        LayerError
            If no mask of this pattern fits the shape.
        """

    @abstractmethod
    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Return the allowed mask with `keep` entries and the greatest total score.

        Parameters
        ----------
        score : Tensor of shape (..., rows, columns)
            Larger = keep; no NaN.
        keep : int
            A multiple of :meth:`quantum`, from 0 to the number of entries.

        Returns
        -------
        Tensor of bool
            Same shape as `score`.
        """

    def count(self, shape: Sequence[int], density: float) -> int:
        """Return the allowed count nearest to `density` times the number of entries."""
        quantum = self.quantum(shape)
        return quantum * math.floor(density * math.prod(shape) / quantum + 0.5)

    @property
    @abstractmethod
    def spec(self) -> str:
        """Its text, as ``from_spec`` reads it."""


def require_multiple(size: int, step: int, what: str, who: str) -> None:
    """Raise :class:`LayerError` unless `step` divides the number of inputs or outputs."""
    if size % step:
        raise LayerError(
            f"{who} needs a number of {what} divisible by {step}, and there are {size}; "
            "exclude the layer or choose another pattern"
        )
