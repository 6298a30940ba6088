"""The Optimal Brain Surgeon update, swept from left to right over all rows at once."""

from __future__ import annotations

__all__ = ["OBS"]

from dataclasses import dataclass

import torch

from ...core._core import obs_sweep
from ..chooser import MaskChooser
from ..moments import Gram
from ..statistics import Statistics
from .base import Update


@dataclass(frozen=True)
class OBS(Update):
    """Choose in blocks of columns, and let the columns to the right absorb each error.

    Parameters
    ----------
    damping : float, default 0.01
        Ridge relative to the mean diagonal of the second moment.
    block_size : int, default 128
        Columns whose errors later columns absorb together, rounded up to what the pattern
        allows. Their mask is chosen together too, unless the pattern has smaller groups in
        which weights compete: the mask of an N:M group is chosen from weights that already
        absorbed the errors of every group before it.

    References
    ----------
    Frantar and Alistarh, SparseGPT (2023), algorithm 1; section 3.4 sets the width of a
    choice to M for N:M.
    """

    damping: float = 0.01
    block_size: int = 128
    name = "obs"
    needs = frozenset({Gram})

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sweep the columns; see :class:`Update` for the shapes."""
        gram = statistics[Gram]
        factor = gram.inverse_factor(self.damping)
        # An input that is always zero cannot matter; its weights compete as zeros.
        idle = gram.value.diagonal(dim1=-2, dim2=-1) == 0
        current = weight.masked_fill(idle.unsqueeze(-2), 0)
        columns = current.shape[-1]
        step = choose.column_step
        fixed = choose(current) if step is None else None
        errors = torch.zeros_like(current)
        width = self.block_size if step is None else -(-self.block_size // step) * step
        mask = torch.zeros_like(current, dtype=torch.bool) if fixed is None else fixed
        for start in range(0, columns, width):
            stop = min(start + width, columns)
            group = width if fixed is not None else choose.pattern.swap_width or width
            for left in range(start, stop, group):
                here = slice(left, min(left + group, stop))
                if fixed is None:
                    mask[..., here] = choose.columns(current[..., here], here.start, here.stop)
                errors[..., here] = _sweep(
                    current[..., here], mask[..., here], factor[..., here, here]
                )
                rest = slice(here.stop, stop)
                current[..., rest] -= errors[..., here] @ factor[..., here, rest]
            block, rest = slice(start, stop), slice(stop, columns)
            current[..., rest] -= errors[..., block] @ factor[..., block, rest]
        return torch.where(mask, current, 0), mask


def _sweep(block: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Remove the unmasked weights of a block, column after column, in place.

    Parameters
    ----------
    block : Tensor of shape (..., rows, columns)
        Current weights; updated in place.
    mask : Tensor of bool, same shape
        What stays.
    factor : Tensor of shape (..., columns, columns)
        The block of the upper Cholesky factor.

    Returns
    -------
    Tensor of shape (..., rows, columns)
        Scaled errors, which later blocks must absorb.
    """
    errors = torch.zeros(block.shape, dtype=block.dtype, device=block.device)
    if block.dim() == 2 and block.device.type == "cpu":
        obs_sweep(block, mask.contiguous(), factor.contiguous(), errors)
        return errors
    for j in range(block.shape[-1]):
        error = block[..., j] * ~mask[..., j] / factor[..., j, j, None]
        errors[..., j] = error
        block[..., j:] -= error.unsqueeze(-1) * factor[..., j, j:].unsqueeze(-2)
    return errors
