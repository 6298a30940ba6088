"""Groups of output rows that share the positions of their survivors."""

from __future__ import annotations

__all__ = ["RowGroups"]

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from thresher.core.card import Card, Catalogued
from thresher.core.errors import LayerError, OptionError

from .. import _run
from .buffers import FLOATS, Buffer, integers
from .convolving import ConvolvingLayout
from .indexed import too_wide
from .kernel import refuse_outside, value_dtypes

_SIZES = (16, 8, 4, 2)
_INDEX_BYTES = 2
_MOST_ROWS = 1 << 16
# Pairs that share leave half of the supports; zeros inside a group a few more.
_MOST_DIFFERENT = 0.75


class RowGroups(ConvolvingLayout, Catalogued):
    """Groups of 2, 4, 8 or 16 rows with one column index for a value in each of them.

    An input that was loaded is used for every row of the group, which takes the kernel from the
    speed of the cache to that of the arithmetic, and a column takes its two bytes once per group.
    Rows of a group need not follow each other: the layout keeps the order in which it stores
    rows, and the kernel writes each where it belongs. Convolutions in groups, such as depthwise
    ones, have too few rows on the same inputs to be taken.

    Buffers: ``group_starts``, int64 (ceil(rows / group) + 1,); ``indices``, uint16 (positions,),
    the column of each; ``values``, (positions, group), zero past the last row; ``order``, uint16
    (rows,), the row that each stored row is. Setting: ``group``.

    Notes
    -----
    The source rearranges the channels of the whole network, each layer's inputs after its
    predecessor's outputs. With the channels of an image stored one after another, writing them
    in another order costs nothing, so here every layer is rearranged by itself
    (:class:`thresher.parts.patterns.shared_rows.SharedRows` chooses how) and no other layer is
    touched. The source's patterns for depthwise kernels are not here: a depthwise channel shares
    no input.
    """

    name = "row-groups"
    takes_groups = False
    card = Card(
        name="sparsebytenn",
        title="SparseByteNN: A Novel Mobile Inference Acceleration Framework Based on "
        "Fine-Grained Group Sparsity",
        authors="Haitao Xu et al.",
        year=2023,
        arxiv="2310.19509",
        summary="Groups of output channels share positions; channels are rearranged to suit",
    )

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse matrices whose rows share no positions, or that would take more bytes."""
        if reason := too_wide(weight) or _too_tall(weight):
            return reason
        group, order = _best_groups(weight != 0)
        if group == 1:
            return "rows do not share their positions"
        positions = int(_shared(weight != 0, order, group).sum())
        bytes_of_position = _INDEX_BYTES + group * weight.element_size()
        if positions * bytes_of_position >= weight.numel() * weight.element_size():
            return "too dense: positions and values take more bytes than the dense matrix"
        return None

    @classmethod
    def example(cls, weight: Tensor) -> Tensor | None:
        """Let every four rows share the positions of the first of them."""
        kept = (weight[::4] != 0).repeat_interleave(4, 0)[: weight.shape[0]]
        return torch.where(weight == 0, torch.ones_like(weight), weight) * kept

    @classmethod
    def from_dense(cls, weight: Tensor, group: int | None = None) -> Self:
        """Pack a dense matrix.

        Parameters
        ----------
        weight : Tensor
            Shape (rows, columns).
        group : int, optional
            Rows per group. Default: the size that takes the fewest bytes.

        Raises
        ------
        LayerError
            If it has more than 65,536 rows or columns.
        OptionError
            If `group` is not positive.
        """
        if reason := too_wide(weight) or _too_tall(weight):
            raise LayerError(
                f"a matrix of shape {tuple(weight.shape)} does not fit row-groups: {reason}"
            )
        if group is not None and group < 1:
            raise OptionError(f"group={group} must be 1 or more rows")
        weight = weight.detach()
        kept = weight != 0
        if group is None:
            group, order = _best_groups(kept)
        else:
            order, _ = _best_order(kept, group, _by_support(kept)[0])
        shared = _shared(kept, order, group)
        starts = torch.zeros(shared.shape[0] + 1, dtype=torch.int64)
        torch.cumsum(shared.sum(1), 0, out=starts[1:])
        blocks = _grouped(weight[order], group).transpose(1, 2)
        tensors = {
            "group_starts": starts,
            "indices": shared.nonzero()[:, 1].to(torch.uint16),
            "values": blocks[shared],
            "order": order.to(torch.uint16),
        }
        return cls(tensors, (weight.shape[0], weight.shape[1]), {"group": group})

    @classmethod
    def expected(cls, shape: tuple[int, int], settings: Mapping[str, int]) -> dict[str, Buffer]:
        """Return what group starts, columns, values and the order of rows must look like."""
        (group,) = integers(settings, "group")
        if not 1 <= group <= _MOST_ROWS or shape[0] > _MOST_ROWS:
            raise LayerError(f"{shape[0]} rows in groups of {group}: both are at most {_MOST_ROWS}")
        return {
            "group_starts": Buffer((torch.int64,), (-(-shape[0] // group) + 1,)),
            "indices": Buffer((torch.uint16,), ("positions",)),
            "values": Buffer(FLOATS, ("positions", group)),
            "order": Buffer((torch.uint16,), (shape[0],)),
        }

    def bind(self) -> Any:
        """Bind group starts, columns, values and the order of rows."""
        values = self.take("values", *value_dtypes)
        self.dtype = values.dtype
        starts = self.take("group_starts", torch.int64)
        indices = self.take("indices", torch.uint16)
        order = self.take("order", torch.uint16)
        group = self.setting("group")
        matrix = _run.RowGroups(starts, indices, values, order, *self.shape, group)
        if below := self.shape[0] % group:
            refuse_outside(values[int(starts[-2]) :, below:], "values")
        return matrix

    def to_dense(self) -> Tensor:
        """Return the dense matrix."""
        rows, columns = self.shape
        group = self.setting("group")
        groups = -(-rows // group)
        blocks = torch.zeros(groups, columns, group, dtype=self.dtype, device=self.device)
        counts = self._tensors["group_starts"].diff()
        at = torch.arange(groups, device=self.device).repeat_interleave(counts)
        values = self._tensors["values"].reshape(-1, group)
        blocks[at, self._tensors["indices"].long()] = values
        stored = blocks.transpose(1, 2).reshape(groups * group, columns)[:rows]
        dense = torch.empty_like(stored)
        dense[self._tensors["order"].long()] = stored
        return dense


def _too_tall(weight: Tensor) -> str | None:
    return f"more than {_MOST_ROWS:,} rows" if weight.shape[0] > _MOST_ROWS else None


def _grouped(matrix: Tensor, group: int) -> Tensor:
    """Return a matrix as (groups, group, columns), padded with zeros."""
    padded = nn.functional.pad(matrix, (0, 0, 0, -matrix.shape[0] % group))
    return padded.reshape(padded.shape[0] // group, group, matrix.shape[1])


def _shared(kept: Tensor, order: Tensor, group: int) -> Tensor:
    """Return which columns any row of a group keeps, (groups, columns)."""
    return _grouped(kept[order], group).any(1)


def _by_support(kept: Tensor) -> tuple[Tensor, int]:
    """Return an order that brings rows of equal support together, and how many supports differ.

    A rearrangement is found again in this way from the zeros alone.
    """
    if not kept.numel():
        return torch.arange(kept.shape[0]), 0
    supports = np.packbits(kept.numpy(), axis=1)
    different, which = np.unique(supports, axis=0, return_inverse=True)
    return torch.from_numpy(np.argsort(which.reshape(-1), kind="stable")), len(different)


def _best_order(kept: Tensor, group: int, by_support: Tensor) -> tuple[Tensor, int]:
    """Return the rows as they are, or by support where that takes fewer positions, and these."""
    orders = (torch.arange(kept.shape[0]), by_support)
    positions = [int(_shared(kept, order, group).sum()) for order in orders]
    chosen = int(positions[1] < positions[0])
    return orders[chosen], positions[chosen]


def _best_groups(kept: Tensor) -> tuple[int, Tensor]:
    """Return the size of groups, 1 for none, and the order of rows that take the fewest bytes."""
    value_bytes = 4
    by_support, different = _by_support(kept)
    best = (1, torch.arange(kept.shape[0]))
    if different > _MOST_DIFFERENT * kept.shape[0]:
        return best
    least = int(kept.sum()) * (_INDEX_BYTES + value_bytes)
    for group in _SIZES:
        order, positions = _best_order(kept, group, by_support)
        taken = positions * (_INDEX_BYTES + group * value_bytes)
        if taken < least:
            best, least = (group, order), taken
    return best
