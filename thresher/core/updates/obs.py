"""The Optimal Brain Surgeon update, swept from left to right over all rows at once."""

from __future__ import annotations

__all__ = ["OBS"]

from dataclasses import dataclass

import torch

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
        # Transposed, every step below works on contiguous rows.
        current = weight.mT.contiguous()
        columns = current.shape[-2]
        step = choose.pattern.column_step
        # An input that is always zero cannot matter; its weights compete as zeros.
        current[_expand_dead(statistics, current)] = 0
        fixed = choose(current.mT) if step is None else None
        width = self.block_size if step is None else -(-self.block_size // step) * step
        masks = []
        for start in range(0, columns, width):
            stop = min(start + width, columns)
            block = current[..., start:stop, :]
            mask = (
                fixed[..., start:stop]
                if fixed is not None
                else choose.columns(block.mT, start, stop)
            )
            masks.append(mask)
            errors = _sweep(block, mask.mT, factor[..., start:stop, start:stop])
            if stop < columns:
                current[..., stop:, :] -= factor[..., start:stop, stop:].mT @ errors
        mask = torch.cat(masks, dim=-1)
        return torch.where(mask, current.mT, 0).contiguous(), mask


def _expand_dead(statistics: Statistics, transposed: torch.Tensor) -> torch.Tensor:
    return (statistics.norm == 0).unsqueeze(-1).expand_as(transposed)


#: Columns swept one by one before their errors are applied to the rest of the block.
_STRIP = 16


def _sweep(block: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Remove the unmasked weights of a block, column after column, in place.

    Parameters
    ----------
    block : Tensor of shape (..., columns, rows)
        Transposed weights; updated in place.
    mask : Tensor of bool, same shape
        What stays.
    factor : Tensor of shape (..., columns, columns)
        The block of the upper Cholesky factor.

    Returns
    -------
    Tensor of shape (..., columns, rows)
        Scaled errors, which later blocks must absorb.
    """
    errors = torch.zeros_like(block)
    removed = ~mask
    columns = block.shape[-2]
    scale = 1 / factor.diagonal(dim1=-2, dim2=-1)
    for start in range(0, columns, _STRIP):
        stop = min(start + _STRIP, columns)
        for j in range(start, stop):
            error = block[..., j, :] * removed[..., j, :] * scale[..., j, None]
            errors[..., j, :] = error
            later = factor[..., j, j + 1 : stop]
            block[..., j + 1 : stop, :] -= later.unsqueeze(-1) * error.unsqueeze(-2)
        if stop < columns:
            spread = factor[..., start:stop, stop:].mT @ errors[..., start:stop, :]
            block[..., stop:, :] -= spread
    return errors
