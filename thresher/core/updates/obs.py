"""The Optimal Brain Surgeon update, swept from left to right over all rows at once."""

from __future__ import annotations

__all__ = ["OBS"]

from dataclasses import dataclass

import torch

from .._core import obs_sweep
from ..chooser import MaskChooser
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
        Columns whose mask is chosen together, rounded up to what the pattern allows.

    References
    ----------
    Frantar and Alistarh, SparseGPT (2023), algorithm 1.
    """

    damping: float = 0.01
    block_size: int = 128
    needs = frozenset({"gram", "norm"})

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sweep the columns; see :class:`Update` for the shapes."""
        factor = statistics.inverse_factor(self.damping)
        # An input that is always zero cannot matter; its weights compete as zeros.
        current = weight.masked_fill((statistics.norm == 0).unsqueeze(-2), 0)
        columns = current.shape[-1]
        step = choose.pattern.column_step
        fixed = choose(current) if step is None else None
        width = self.block_size if step is None else -(-self.block_size // step) * step
        masks = []
        for start in range(0, columns, width):
            stop = min(start + width, columns)
            block = current[..., start:stop]
            if fixed is None:
                mask = choose.columns(block, start, stop)
            else:
                mask = fixed[..., start:stop]
            masks.append(mask)
            errors = _sweep(block, mask, factor[..., start:stop, start:stop])
            if stop < columns:
                current[..., stop:] -= errors @ factor[..., start:stop, stop:]
        mask = torch.cat(masks, dim=-1)
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
