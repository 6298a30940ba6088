"""N of every M consecutive weights."""

from __future__ import annotations

__all__ = ["NM"]

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from ...core.errors import OptionError
from ...core.top_k import top_k_mask
from .base import Pattern, require_multiple


@dataclass(frozen=True)
class NM(Pattern):
    """N weights kept among every M consecutive inputs of a row, or outputs of a column.

    Parameters
    ----------
    n, m : int
        ``0 < n <= m``. A budget that gives layers different densities varies N and leaves M.
    along : {"inputs", "outputs"}, default "inputs"
        Hardware knows 2:4 along the inputs; the layout ``n:m:g`` is along the outputs.

    Raises
    ------
    OptionError
        If `n` is not in 1..m, or `along` is something else.
    """

    n: int
    m: int
    along: str = "inputs"
    name = "n:m"
    spellings = ("2:4", "2:4/outputs")

    def __post_init__(self) -> None:
        if self.along not in ("inputs", "outputs"):
            raise OptionError(f"N:M is along 'inputs' or 'outputs', not along {self.along!r}")
        if not 0 < self.n <= self.m:
            raise OptionError(
                f"pattern {self.n}:{self.m} keeps {self.n} of every {self.m} weights; "
                "N must be at least 1 and at most M"
            )

    @property
    def density(self) -> float:
        """``n / m``."""
        return self.n / self.m

    @property
    def column_step(self) -> int:
        """Groups of M must not be cut."""
        return self.m if self.along == "inputs" else 1

    @property
    def swap_width(self) -> int | None:
        """Trades stay inside a group, and a row has none of its own along the outputs."""
        return self.m if self.along == "inputs" else None

    def quantum(self, shape: Sequence[int]) -> int:
        """Return the number of groups."""
        size = shape[-1] if self.along == "inputs" else shape[-2]
        require_multiple(size, self.m, self.along, f"pattern {self.spec}")
        return max(1, math.prod(shape) // self.m)

    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Keep the N largest of each group."""
        n = keep // self.quantum(score.shape)
        if self.along == "outputs":
            return NM(self.n, self.m).mask(score.mT, keep).mT.contiguous()
        groups = score.reshape(*score.shape[:-1], score.shape[-1] // self.m, self.m)
        mask: torch.Tensor = top_k_mask(groups, n)
        return mask.reshape(score.shape)

    @property
    def spec(self) -> str:
        """``"N:M"`` or ``"N:M/outputs"``."""
        return f"{self.n}:{self.m}" + ("" if self.along == "inputs" else "/outputs")

    @classmethod
    def from_spec(cls, text: str) -> Self | None:
        """Read ``"N:M"``, ``"N:M/inputs"`` or ``"N:M/outputs"``."""
        found = re.fullmatch(r"(\d+):(\d+)(?:/(inputs|outputs))?", text)
        return cls(int(found[1]), int(found[2]), found[3] or "inputs") if found else None
