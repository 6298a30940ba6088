"""A support that is chosen for the whole layer at once, by alternating directions."""

from __future__ import annotations

__all__ = ["ADMM"]

from dataclasses import dataclass

import torch

from ..chooser import MaskChooser
from ..linalg import conjugate_gradients, damped, unit_diagonal
from ..moments import Gram, Moment
from ..statistics import Statistics
from .base import Update
from .obs import OBS

#: How often the penalty grows, and by how much when this share of the support has changed.
_EVERY = 3
_GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))


@dataclass(frozen=True)
class ADMM(Update):
    """Choose the support by ADMM over the whole layer, and give it its exact weights.

    The support of another update is given its exact weights too, and the better one of both is
    kept: by the error over all rows, never worse than that update.

    Parameters
    ----------
    damping : float, default 0.01
        Ridge towards the dense weights, relative to the mean diagonal of the second moment.
    penalty : float, default 0.3
        First weight of the constraint, relative to a second moment of unit diagonal. It grows
        while the support changes. At 0.1, as published, 20 iterations end where 10 do here.
    iterations : int, default 10
        At most; four more lower the error by about another 1 %, for a third as long again.
    steps : int, default 5
        Of conjugate gradients towards the exact weights; the error hardly falls after.
    start : Update, default OBS()
        Where the search begins, and what it is held against.

    Notes
    -----
    With H the damped second moment, scaled to a unit diagonal, and W the dense weights in the
    same scaling, iterate::

        X = W + r (D - U - W) (H + r I)^-1,  D = P(X + U),  U = U + X - D

    where P keeps the largest entries that the pattern allows, and r grows; U, the price of the
    constraint over r, shrinks by as much.

    References
    ----------
    Meng et al., ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language
    Models (2024), section 3 and appendix B, for splitting, scaling and growth of the penalty.
    """

    damping: float = 0.01
    penalty: float = 0.3
    iterations: int = 10
    steps: int = 5
    start: Update = OBS()
    name = "admm"

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """The second moment, and what `start` needs."""
        return self.start.needs | {Gram}

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Search, refit both supports, and keep the better; see :class:`Update` for the shapes."""
        begun, mask = self.start(weight, choose, statistics)
        second = statistics[Gram].value
        # An input that is always zero cannot matter; its weights compete as zeros.
        idle = second.diagonal(dim1=-2, dim2=-1) == 0
        weight = weight.masked_fill(idle.unsqueeze(-2), 0)
        hessian = damped(second, self.damping)
        target = weight @ hessian
        found = self._search(weight, hessian, choose, mask)
        solutions = [
            (conjugate_gradients(hessian, target, first, support, self.steps), support)
            for first, support in ((begun, mask), found)
        ]
        return min(solutions, key=lambda each: _excess(each[0], hessian, target))

    def _search(
        self,
        weight: torch.Tensor,
        hessian: torch.Tensor,
        choose: MaskChooser,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights and support that the iteration ends with."""
        scale = hessian.diagonal(dim1=-2, dim2=-1).sqrt().unsqueeze(-2)
        dense, correlation = weight * scale, unit_diagonal(hessian)
        penalty, inverse = self.penalty, _shifted_inverse(correlation, self.penalty)
        sparse, price, compared = dense * mask, torch.zeros_like(dense), mask
        for iteration in range(1, self.iterations + 1):
            free = dense + penalty * ((sparse - price - dense) @ inverse)
            proposed = free + price
            mask = choose.pattern.mask(proposed.abs(), choose.keep)
            sparse = proposed * mask
            price = proposed - sparse
            if iteration % _EVERY == 0 and iteration < self.iterations:
                changed = int((mask ^ compared).sum()) / (2 * max(1, choose.keep))
                if not changed:
                    break
                growth = next(growth for share, growth in _GROWTH if changed > share)
                penalty, price = penalty * growth, price / growth
                inverse = _shifted_inverse(correlation, penalty)
                compared = mask
        return sparse / scale, mask


def _shifted_inverse(matrix: torch.Tensor, shift: float) -> torch.Tensor:
    shifted = matrix.clone()
    shifted.diagonal(dim1=-2, dim2=-1).add_(shift)
    return torch.cholesky_inverse(torch.linalg.cholesky(shifted))


def _excess(weight: torch.Tensor, hessian: torch.Tensor, target: torch.Tensor) -> float:
    """Return the error of the layer's output, less what is the same for every weight."""
    return float((weight * (weight @ hessian - 2 * target)).sum(dtype=torch.float64))
