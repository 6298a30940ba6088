"""Groups of rows that keep the same inputs."""

from __future__ import annotations

__all__ = ["SharedRows"]

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from ...core.errors import OptionError
from .base import Pattern, require_multiple
from .blocks import Block


@dataclass(frozen=True)
class SharedRows(Pattern):
    """Groups of `size` output rows, neighbours or not, that keep the same inputs.

    Which rows form a group is chosen with the mask: by turns the best inputs are found for the
    groups and the best groups for the inputs, from groups of neighbours on, until the total score
    stops growing. The mask scores at least as much as that of ``Block(size, 1)`` but need not
    be the best of all.

    Parameters
    ----------
    size : int
        Rows of a group; it must divide the number of rows.

    References
    ----------
    Xu et al., SparseByteNN (2023): a kernel for groups of output channels, and channels
    rearranged so that groups retain more magnitude. The search is this library's own.
    """

    size: int
    name = "shared-rows"
    spellings = ("shared/4",)
    column_step = None
    swap_width = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise OptionError(f"a group of {self.size} rows shares nothing")

    def quantum(self, shape: Sequence[int]) -> int:
        """Return the size of a group."""
        require_multiple(shape[-2], self.size, "outputs", f"pattern {self.spec}")
        return self.size

    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Keep inputs of large total score in groups of rows that suit each other."""
        blocks = Block(self.size, 1)
        stack = score.reshape(-1, *score.shape[-2:])
        order = torch.arange(stack.shape[1]).expand(stack.shape[:2])
        best, most = torch.zeros_like(stack, dtype=torch.bool), -math.inf
        while True:
            rows = order[:, :, None].expand_as(stack).to(stack.device)
            chosen = blocks.mask(stack.gather(1, rows), keep)
            mask = torch.zeros_like(chosen).scatter_(1, rows, chosen)
            total = float(stack[mask].double().sum())
            if not total > most:
                return best.reshape(score.shape)
            best, most = mask, total
            order = torch.stack(
                [
                    _suited_order(one.cpu(), inputs.cpu(), self.size)
                    for one, inputs in zip(stack, chosen[:, :: self.size], strict=True)
                ]
            )

    @property
    def spec(self) -> str:
        """``"shared/SIZE"``."""
        return f"shared/{self.size}"

    @classmethod
    def from_spec(cls, text: str) -> Self | None:
        """Read ``"shared/SIZE"``."""
        found = re.fullmatch(r"shared/(\d+)", text)
        return cls(int(found[1])) if found else None


def _suited_order(score: torch.Tensor, inputs: torch.Tensor, size: int) -> torch.Tensor:
    """Return rows in an order in which every `size` of them score most on a group's inputs.

    Parameters
    ----------
    score : Tensor
        Shape (rows, columns).
    inputs : Tensor of bool
        What each group keeps, (rows / size, columns).
    size : int
        Rows per group.
    """
    from scipy.optimize import linear_sum_assignment

    huge = 1e30
    gains = score.double().clamp(-huge, huge) @ inputs.double().T
    places = gains.repeat_interleave(size, dim=1).numpy()
    rows, columns = linear_sum_assignment(places, maximize=True)
    order = torch.empty(score.shape[0], dtype=torch.int64)
    order[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return order
