"""Any weights, wherever they are."""

from __future__ import annotations

__all__ = ["FanIn", "Unstructured"]

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch

from ...core.errors import OptionError
from ...core.top_k import top_k_mask
from .base import Pattern


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Any weights.

    Parameters
    ----------
    per : {"tensor", "row"}, default "tensor"
        Whether weights compete across the whole matrix or within each output row, all rows
        keeping the same number. Wanda (Sun et al. 2023, section 3) compares per row.
    """

    per: str = "tensor"
    name = "unstructured"
    spellings: ClassVar[tuple[str, ...]] = ("unstructured", "per-row")

    def __post_init__(self) -> None:
        if self.per not in ("tensor", "row"):
            raise OptionError(f"weights compete per 'tensor' or per 'row', not per {self.per!r}")

    def quantum(self, shape: Sequence[int]) -> int:
        """Return 1, or the number of rows."""
        return 1 if self.per == "tensor" else max(1, math.prod(shape[:-1]))

    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Keep the largest scores."""
        if self.per == "tensor":
            mask: torch.Tensor = top_k_mask(score, keep, axis=None)
        else:
            mask = top_k_mask(score, keep // self.quantum(score.shape))
        return mask

    @property
    def spec(self) -> str:
        """``"unstructured"`` or ``"per-row"``."""
        return "unstructured" if self.per == "tensor" else "per-row"

    @classmethod
    def from_spec(cls, text: str) -> Self | None:
        """Read ``"unstructured"`` or ``"per-row"``."""
        return {"unstructured": cls(), "per-row": cls("row")}.get(text)


@dataclass(frozen=True)
class FanIn(Unstructured):
    """The same number of inputs for every output row (constant fan-in).

    References
    ----------
    Lasby et al., Dynamic Sparse Training with Structured Sparsity (2023), section 3.
    """

    per: str = field(default="row", init=False)
    name = "fan-in"
    spellings = ()

    @property
    def spec(self) -> str:
        """``"fan-in"``."""
        return "fan-in"

    @classmethod
    def from_spec(cls, text: str) -> Self | None:
        """Read ``"fan-in"``."""
        return cls() if text == "fan-in" else None
