"""The exact answer for a given support: one least-squares problem per row."""

from __future__ import annotations

__all__ = ["LeastSquares"]

from dataclasses import dataclass

import torch

from ...core.errors import NumericalError
from ..chooser import MaskChooser
from ..linalg import damped
from ..moments import Gram, Moment
from ..statistics import Statistics
from .base import Keep, Update

#: Entries of the row systems that are in memory at a time (about 256 MB in float32).
_ENTRIES = 1 << 26


@dataclass(frozen=True)
class LeastSquares(Update):
    """Refit every row on its support so that the layer's output changes least.

    Parameters
    ----------
    damping : float, default 0.01
        Ridge towards the dense weights, relative to the mean diagonal of the second moment.
    support : Update, default Keep()
        Its mask is refitted: ``LeastSquares(support=OBS())`` gives the exact answer on
        SparseGPT's support, ``LeastSquares(support=DSnoT())`` on swapped ones.

    Notes
    -----
    With H the damped second moment and w the dense row, the survivors S of the row solve
    ``H_SS v = (H w)_S``: the minimiser of ``(v - w)^T H (v - w)`` over vectors supported on
    S. OBS approximates it at the cost of one sweep; this costs a factorisation per row.
    """

    damping: float = 0.01
    support: Update = Keep()
    name = "least-squares"

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """The second moment, and what `support` needs."""
        return self.support.needs | {Gram}

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the support, then solve every row on it."""
        _, mask = self.support(weight, choose, statistics)
        hessian = damped(statistics[Gram].value, self.damping)
        if weight.dim() == 2:
            return _refit(weight, mask, hessian), mask
        flat = zip(weight.flatten(0, -3), mask.flatten(0, -3), hessian.flatten(0, -3), strict=True)
        return torch.stack([_refit(w, m, h) for w, m, h in flat]).reshape(weight.shape), mask


def _refit(weight: torch.Tensor, mask: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    target = weight @ hessian
    result = torch.zeros_like(weight)
    if bool((mask == mask[:1]).all()):
        # All rows keep the same columns, and share one system.
        shared = mask[0].nonzero().flatten()
        factor = _factor(hessian[shared][:, shared])
        result[:, shared] = torch.cholesky_solve(target[:, shared].mT, factor).mT
        return result
    # Rows with equally many survivors stack without padding.
    counts = mask.sum(-1)
    for count in sorted(set(counts.tolist())):
        if count == 0:
            continue
        rows = (counts == count).nonzero().flatten()
        support = mask[rows].nonzero()[:, 1].reshape(len(rows), count)
        pieces = -(-len(rows) * count**2 // _ENTRIES)
        for part, chosen in zip(rows.chunk(pieces), support.chunk(pieces), strict=True):
            systems = hessian[chosen.unsqueeze(-1), chosen.unsqueeze(-2)]
            right = target[part].gather(-1, chosen).unsqueeze(-1)
            solution = torch.cholesky_solve(right, _factor(systems))
            result[part.unsqueeze(-1), chosen] = solution.squeeze(-1)
    return result


def _factor(systems: torch.Tensor) -> torch.Tensor:
    factor: torch.Tensor
    factor, info = torch.linalg.cholesky_ex(systems)
    if bool((info != 0).any()):
        raise NumericalError(
            "the second moment of the inputs is singular on a support; raise the damping "
            "or calibrate with more tokens"
        )
    return factor
