"""A matrix settled column by column, each change made up for by the columns to its right.

What settling a column is, whoever walks says: some weights become zero, or all of them the nearest
that a format has, or both.
"""

from __future__ import annotations

__all__ = ["Levels", "sweep", "walk"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..core._core import obs_sweep


@dataclass(frozen=True)
class Levels:
    """Evenly spaced values, of every row its own: ``minimum + code * scale``.

    Parameters
    ----------
    scale, minimum : Tensor of shape (..., rows, 1), float32
    most : int
        The largest code; the least is 0.
    """

    scale: torch.Tensor
    minimum: torch.Tensor
    most: int

    def codes(self, part: torch.Tensor) -> torch.Tensor:
        """Return the codes of the values nearest to some columns, as float32."""
        ratio = (part - self.minimum) / self.scale
        return torch.where(self.scale == 0, 0, ratio).round().clamp(0, self.most)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """Return what codes stand for."""
        return codes * self.scale + self.minimum


def walk(
    weight: torch.Tensor,
    factor: torch.Tensor,
    block: int,
    group: int,
    settle: Callable[[slice], torch.Tensor],
) -> None:
    """Settle the columns of a matrix from left to right, in place.

    Parameters
    ----------
    weight : Tensor of shape (..., rows, columns)
    factor : Tensor of shape (..., columns, columns)
        Upper Cholesky factor of the inverse second moment of the inputs.
    block : int
        Columns whose changes those beyond make up for together.
    group : int
        Columns that are settled at a time; the last of a block may be fewer.
    settle : callable
        ``settle(here)`` settles the columns of a slice, which have made up for all to their left,
        and returns what :func:`sweep` does.

    References
    ----------
    Frantar and Alistarh, SparseGPT (2023), algorithm 1.
    """
    columns = weight.shape[-1]
    errors = torch.zeros_like(weight)
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        for left in range(start, stop, group):
            here = slice(left, min(left + group, stop))
            errors[..., here] = settle(here)
            rest = slice(here.stop, stop)
            weight[..., rest] -= errors[..., here] @ factor[..., here, rest]
        whole, rest = slice(start, stop), slice(stop, columns)
        weight[..., rest] -= errors[..., whole] @ factor[..., whole, rest]


def sweep(
    part: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor, levels: Levels | None = None
) -> torch.Tensor:
    """Settle columns of a matrix one by one, in place; those to the right make up for each.

    Parameters
    ----------
    part : Tensor of shape (..., rows, columns)
        Current weights; updated in place.
    mask : Tensor of bool, same shape
        What stays; the others become zero.
    factor : Tensor of shape (..., columns, columns)
        These columns' block of the upper Cholesky factor.
    levels : Levels, optional
        What weights that stay are rounded to.  [default: they stay as they are]

    Returns
    -------
    Tensor of shape (..., rows, columns)
        Changes over the factor's diagonal, for the columns beyond to make up for.
    """
    errors = torch.zeros(part.shape, dtype=part.dtype, device=part.device)
    if part.dim() == 2 and part.device.type == "cpu":
        values: tuple[Any, ...] = ()
        if levels is not None:
            values = (levels.scale.flatten(), levels.minimum.flatten(), levels.most)
        obs_sweep(part, mask.contiguous(), factor.contiguous(), errors, *values)
        return errors
    for j in range(part.shape[-1]):
        here = slice(j, j + 1)
        before = part[..., here].clone()
        near = before if levels is None else levels.values(levels.codes(before))
        settled = torch.where(mask[..., here], near, 0)
        error = (before - settled) / factor[..., here, here]
        errors[..., here] = error
        part[..., j:] -= error * factor[..., here, j:]
        part[..., here] = settled
    return errors
