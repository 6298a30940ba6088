"""The mask chooser: a score, a pattern and a count, ready to be asked for any columns."""

from __future__ import annotations

__all__ = ["MaskChooser"]

from dataclasses import dataclass

import torch

from ..core.errors import LayerError
from .patterns import Pattern
from .scores import Score
from .statistics import Statistics


@dataclass(frozen=True)
class MaskChooser:
    """Chooses what to keep of one layer, whole or block of columns by block of columns.

    Parameters
    ----------
    score : Score
        What matters.
    pattern : Pattern
        Which supports are allowed.
    keep : int
        How many weights of the layer to keep; a multiple of the pattern's quantum.
    statistics : Statistics
        Of the whole layer.
    shape : tuple of int
        Shape of the layer's matrix.
    """

    score: Score
    pattern: Pattern
    keep: int
    statistics: Statistics
    shape: tuple[int, ...]

    @property
    def column_step(self) -> int | None:
        """Columns that must be chosen together, see :meth:`columns`; None when all at once."""
        return self.pattern.column_step if self.score.by_columns else None

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the mask of the whole weight.

        Parameters
        ----------
        weight : Tensor of shape (..., rows, columns)
            Current weights.

        Returns
        -------
        Tensor of bool
            Exactly :attr:`keep` entries are true.
        """
        return self.pattern.mask(self._scored(weight, self.statistics), self.keep)

    def columns(self, weight: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return the mask of the columns from `start` to `stop`.

        Asked for consecutive blocks that cover the matrix, the masks add up to exactly
        :attr:`keep` weights.

        Parameters
        ----------
        weight : Tensor of shape (..., rows, stop - start)
            Current weights of those columns.
        start, stop : int
            Multiples of :attr:`column_step` (`stop` may be the last column).

        Returns
        -------
        Tensor of bool
        """
        density = self.keep / max(1, torch.Size(self.shape).numel())
        before = self.pattern.count((*self.shape[:-1], start), density)
        through = self.pattern.count((*self.shape[:-1], stop), density)
        view = self.statistics.columns(slice(start, stop))
        return self.pattern.mask(self._scored(weight, view), through - before)

    def _scored(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        score = self.score(weight, statistics)
        if bool(torch.isnan(score).any()):
            raise LayerError(
                f"the score {self.score!r} is NaN in layer {self.statistics.name!r}; "
                "check its weights and the calibration data"
            )
        return score
