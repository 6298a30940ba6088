"""Whole blocks of weights, and whole channels."""

from __future__ import annotations

__all__ = ["Block", "Channels"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...core.errors import OptionError
from ...core.top_k import top_k_mask
from .base import Pattern, as_mask, require_multiple


@dataclass(frozen=True)
class Block(Pattern):
    """Whole blocks of `rows` x `columns` neighbouring weights.

    Parameters
    ----------
    rows, columns : int
        Block size; both must divide the matrix.
    """

    rows: int
    columns: int
    swap_width = None

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise OptionError(f"a block of {self.rows}x{self.columns} holds no weight")

    @property
    def column_step(self) -> int:  # type: ignore[override]
        """Blocks must not be cut."""
        return self.columns

    def quantum(self, shape: Sequence[int]) -> int:
        """Return the size of a block."""
        require_multiple(shape[-2], self.rows, "outputs", f"pattern {self.spec}")
        require_multiple(shape[-1], self.columns, "inputs", f"pattern {self.spec}")
        return self.rows * self.columns

    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Keep the blocks of largest total score."""
        *batch, rows, columns = score.shape
        tall, wide = rows // self.rows, columns // self.columns
        blocks = score.reshape(*batch, tall, self.rows, wide, self.columns)
        chosen = as_mask(top_k_mask(blocks.sum((-3, -1)), keep // self.quantum(score.shape), None))
        return chosen[..., :, None, :, None].expand_as(blocks).reshape(score.shape)

    @property
    def spec(self) -> str:
        """``"RxC"``."""
        return f"{self.rows}x{self.columns}"


@dataclass(frozen=True)
class Channels(Pattern):
    """Whole output channels, or groups of them such as attention heads.

    Parameters
    ----------
    size : int, default 1
        Consecutive output rows that are kept or removed together.
    """

    size: int = 1
    column_step = None
    swap_width = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise OptionError(f"a channel group of {self.size} rows holds no weight")

    def quantum(self, shape: Sequence[int]) -> int:
        """Return the number of weights in a group."""
        require_multiple(shape[-2], self.size, "outputs", f"pattern {self.spec}")
        return self.size * shape[-1]

    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Keep the groups of largest total score."""
        whole = Block(self.size, score.shape[-1])
        return whole.mask(score, keep)

    @property
    def spec(self) -> str:
        """``"channels"`` or ``"channels/SIZE"``."""
        return "channels" if self.size == 1 else f"channels/{self.size}"
