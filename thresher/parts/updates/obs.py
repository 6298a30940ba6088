"""The Optimal Brain Surgeon update, swept from left to right over all rows at once."""

from __future__ import annotations

__all__ = ["OBS"]

from dataclasses import dataclass

import torch

from ..chooser import MaskChooser
from ..column_walk import sweep, walk
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
        step = choose.column_step
        fixed = choose(current) if step is None else None
        width = self.block_size if step is None else -(-self.block_size // step) * step
        mask = torch.zeros_like(current, dtype=torch.bool) if fixed is None else fixed
        group = width if fixed is not None else choose.pattern.swap_width or width

        def settle(here: slice) -> torch.Tensor:
            if fixed is None:
                mask[..., here] = choose.columns(current[..., here], here.start, here.stop)
            return sweep(current[..., here], mask[..., here], factor[..., here, here])

        walk(current, factor, width, group, settle)
        return torch.where(mask, current, 0), mask
