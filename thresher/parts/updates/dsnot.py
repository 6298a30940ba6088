"""Dynamic sparse no training: better masks by swaps that cancel the expected error."""

from __future__ import annotations

__all__ = ["DSnoT"]

from dataclasses import dataclass

import torch

from ...core.errors import LayerError
from ..chooser import MaskChooser
from ..moments import Norm
from ..statistics import Statistics
from .base import Update


@dataclass(frozen=True)
class DSnoT(Update):
    """Trade kept for removed weights, row by row, while the expected output error is large.

    Parameters
    ----------
    cycles : int, default 50
        Most swaps per row (the paper's T).
    threshold : float, default 0.1 / 2048
        A row is done when the magnitude of its expected output error per token is below this.
        The authors' code compares 0.1 with the error summed over a sequence of 2048 tokens.

    Raises
    ------
    LayerError
        On use with a pattern whose weights cannot be swapped one by one, such as blocks.

    References
    ----------
    Zhang et al., Dynamic Sparse No Training (2024), section 3.2.

    Notes
    -----
    With e the sum of ``w_j E[x_j]`` over the removed weights of a row, a swap first revives
    the removed weight of largest ``sign(e) w_j E[x_j] / Var[x_j]``, then removes, among kept
    ones with ``sign(e) w_j E[x_j] < 0`` (whose removal also lowers ``|e|``), that of smallest
    Wanda score. A swap that would leave ``|e|`` larger than it was ends its row, which the
    paper leaves to its threshold; without it a row could swap to and fro.
    """

    cycles: int = 50
    threshold: float = 0.1 / 2048
    name = "dsnot"
    needs = frozenset({Norm})

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Refine the chosen mask; weights never change."""
        width = choose.pattern.swap_width
        if width is None:
            raise LayerError(
                f"DSnoT swaps single weights, which pattern {choose.pattern.spec!r} does not "
                "allow; use unstructured, per-row, fan-in or N:M"
            )
        mask = choose(weight)
        columns = weight.shape[-1]
        rows = (-1, columns)
        inputs = statistics[Norm]
        contribution = (weight * inputs.mean.unsqueeze(-2)).reshape(rows)
        variance = inputs.variance.clamp(min=torch.finfo(torch.float32).tiny)
        gain = (weight * (inputs.mean / variance).unsqueeze(-2)).reshape(rows)
        wanda = (weight.abs() * inputs.value.unsqueeze(-2)).reshape(rows)
        refined = _swap(
            mask.reshape(rows).clone(), contribution, gain, wanda, width or columns, self
        )
        refined = refined.reshape(weight.shape)
        return torch.where(refined, weight, 0), refined


def _swap(
    mask: torch.Tensor,
    contribution: torch.Tensor,
    gain: torch.Tensor,
    wanda: torch.Tensor,
    width: int,
    options: DSnoT,
) -> torch.Tensor:
    """Swap until every row is done; all arguments have shape (rows, columns)."""
    groups = torch.arange(mask.shape[1], device=mask.device) // width
    error = torch.where(mask, 0, contribution).sum(-1)
    active = (error.abs() >= options.threshold).nonzero().flatten()
    for _ in range(options.cycles):
        if not len(active):
            break
        sign = error[active].sign().unsqueeze(-1)
        kept, moves = mask[active], sign * contribution[active]
        grow = (sign * gain[active]).masked_fill(kept, -torch.inf).argmax(-1, keepdim=True)
        candidates = kept & (moves < 0) & (groups == groups[grow])
        prune = wanda[active].masked_fill(~candidates, torch.inf).argmin(-1, keepdim=True)
        change = (moves.gather(-1, prune) - moves.gather(-1, grow)).squeeze(-1)
        before = error[active].abs()
        possible = candidates.any(-1) & ~kept.gather(-1, grow).squeeze(-1)
        better = possible & ((before + change).abs() < before)
        active, sign = active[better], sign[better].squeeze(-1)
        mask[active, grow[better].squeeze(-1)] = True
        mask[active, prune[better].squeeze(-1)] = False
        error[active] += sign * change[better]
        active = active[error[active].abs() >= options.threshold]
    return mask
