"""Weights rounded column by column, later columns making up for what rounding changed."""

from __future__ import annotations

__all__ = ["GPTQ", "Codes", "Grid"]

from dataclasses import dataclass
from typing import Protocol

import torch

from .column_walk import Levels, sweep, walk
from .moments import Gram
from .statistics import Statistics


class Grid(Protocol):
    """A format of evenly spaced values, of which each group of columns has its own in every row."""

    @property
    def width(self) -> int:
        """Columns of a group; the last of a matrix may be narrower."""

    def fit(self, part: torch.Tensor, zero: bool) -> Levels:
        """Return the values for a group.

        Parameters
        ----------
        part : Tensor of shape (..., rows, columns)
            At most `width` columns.
        zero : bool
            Whether zero has to be one of the values.
        """


@dataclass(frozen=True)
class Codes:
    """A matrix of few values.

    Parameters
    ----------
    codes : Tensor of shape (..., rows, columns), uint8
    groups : tuple of Levels
        What codes stand for, by groups of columns from left to right.
    width : int
        Columns of a group; the last may be narrower.
    """

    codes: torch.Tensor
    groups: tuple[Levels, ...]
    width: int

    def dense(self) -> torch.Tensor:
        """Return the matrix in float32."""
        parts = zip(torch.split(self.codes, self.width, -1), self.groups, strict=True)
        return torch.cat([levels.values(part.float()) for part, levels in parts], -1)


@dataclass(frozen=True)
class GPTQ:
    """Round a layer's weights so that its output changes least, one column after another.

    Values are fitted to a group of columns when its turn comes, after what it has to make up for
    was added to it.

    Parameters
    ----------
    damping : float, default 0.01
        Ridge relative to the mean diagonal of the second moment.
    block_size : int, default 128
        Columns whose changes later columns make up for together, rounded up to whole groups.

    References
    ----------
    Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers (2022), algorithm 1, without an order of columns; with zeros that stay it is the
    joint step of SparseGPT (2023), section 3.5, for a mask that is given.
    """

    damping: float = 0.01
    block_size: int = 128
    needs = frozenset({Gram})

    def __call__(
        self,
        weight: torch.Tensor,
        grid: Grid,
        statistics: Statistics,
        mask: torch.Tensor | None = None,
    ) -> Codes:
        """Round a weight.

        Parameters
        ----------
        weight : Tensor of shape (..., rows, columns)
            Float32; not modified.
        grid : Grid
            What to round to.
        statistics : Statistics
            Of the layer's inputs.
        mask : Tensor of bool, same shape, optional
            What stays; the others become zero exactly.  [default: all]
        """
        factor = statistics[Gram].inverse_factor(self.damping)
        # By rows: layers that are stored the other way round are given by columns.
        current, groups = weight.clone(memory_format=torch.contiguous_format), []
        stays = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask

        def settle(here: slice) -> torch.Tensor:
            part, kept = current[..., here], stays[..., here]
            groups.append(grid.fit(part * kept, zero=mask is not None))
            return sweep(part, kept, factor[..., here, here], groups[-1])

        block = -(-self.block_size // grid.width) * grid.width
        walk(current, factor, block, grid.width, settle)
        parts = zip(torch.split(current, grid.width, -1), groups, strict=True)
        codes = torch.cat([levels.codes(part) for part, levels in parts], -1)
        return Codes(codes.to(torch.uint8), tuple(groups), grid.width)
