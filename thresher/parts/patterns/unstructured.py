"""Any weights, wherever they are."""

from __future__ import annotations

__all__ = ["FanIn", "Unstructured"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...core.errors import OptionError
from ...core.top_k import top_k_mask
from .base import Pattern, as_mask


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

    def __post_init__(self) -> None:
        if self.per not in ("tensor", "row"):
            raise OptionError(f"weights compete per 'tensor' or per 'row', not per {self.per!r}")

    def quantum(self, shape: Sequence[int]) -> int:
        """Return 1, or the number of rows."""
        return 1 if self.per == "tensor" else max(1, math.prod(shape[:-1]))

    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Keep the largest scores."""
        if self.per == "tensor":
            return as_mask(top_k_mask(score, keep, axis=None))
        return as_mask(top_k_mask(score, keep // self.quantum(score.shape)))

    @property
    def spec(self) -> str:
        """``"unstructured"`` or ``"per-row"``."""
        return "unstructured" if self.per == "tensor" else "per-row"


@dataclass(frozen=True)
class FanIn(Unstructured):
    """The same number of inputs for every output row (constant fan-in).

    References
    ----------
    Lasby et al., Dynamic Sparse Training with Structured Sparsity (2023), section 3.
    """

    per: str = "row"

    @property
    def spec(self) -> str:
        """``"fan-in"``."""
        return "fan-in"
