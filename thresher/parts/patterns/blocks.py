"""Whole blocks of weights, and whole channels."""

from __future__ import annotations

__all__ = ["Block", "Channels"]

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from ...core.errors import OptionError
from ...core.top_k import top_k_mask
from .base import Pattern, require_multiple


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
    name = "block"
    spellings = ("16x16",)
    swap_width = None

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise OptionError(f"a block of {self.rows}x{self.columns} holds no weight")

    @property
    def column_step(self) -> int:
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
        count = keep // self.quantum(score.shape)
        chosen: torch.Tensor = top_k_mask(blocks.sum((-3, -1)), count, axis=None)
        return chosen[..., :, None, :, None].expand_as(blocks).reshape(score.shape)

    @property
    def spec(self) -> str:
        """``"RxC"``."""
        return f"{self.rows}x{self.columns}"

    @classmethod
    def from_spec(cls, text: str) -> Self | None:
        """Read ``"RxC"``."""
        found = re.fullmatch(r"(\d+)x(\d+)", text)
        return cls(int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True)
class Channels(Pattern):
    """Whole output channels, or groups of them such as attention heads.

    Parameters
    ----------
    size : int, default 1
        Consecutive output rows that are kept or removed together.
    """

    size: int = 1
    name = "channels"
    spellings = ("channels", "channels/64")
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

    @classmethod
    def from_spec(cls, text: str) -> Self | None:
        """Read ``"channels"`` or ``"channels/SIZE"``."""
        found = re.fullmatch(r"channels(?:/(\d+))?", text)
        return cls(int(found[1] or 1)) if found else None
