"""Support and weights that minimise a quadratic model of the loss, by hard thresholding."""

from __future__ import annotations

__all__ = ["HardThresholding"]

from dataclasses import dataclass

import torch

from ..chooser import MaskChooser
from ..fisher import EmpiricalFisher, GradientSamples
from ..statistics import Statistics
from .base import Update

#: Weights that take part at first, for every one that is kept.
_ACTIVE = 2
#: Lengths that a step may have, each twice the one before.
_DOUBLINGS = 12


@dataclass(frozen=True)
class HardThresholding(Update):
    """Choose support and weights together, by iterative hard thresholding of a whole layer.

    Parameters
    ----------
    damping : float, default 0.01
        Ridge towards the dense weights, relative to the mean diagonal of the Fisher.
    iterations : int, default 50
        Thresholded steps at most; fewer where none lowers the objective.

    Notes
    -----
    With F the empirical Fisher, ridge included, it lowers
    ``(w - w_dense)^T F (w - w_dense) / 2`` over weights of the pattern and count asked for. The
    paper adds a term of first order, whose weight depends on the scale of the loss; of a trained
    model it is nearly zero, and it is left out.

    A step goes along the gradient and keeps the largest entries; the best of several lengths from
    the inverse of the largest eigenvalue on is taken, or none, so that the objective never rises.
    Steps move the weights of an active set alone, to which a step of all weights adds those that
    it would keep, until it adds none. Where a step leaves the support as it was, and last, the
    weights on the support are solved for exactly.

    References
    ----------
    Benbaki et al., Fast as CHITA: Neural Network Pruning with Combinatorial Optimization (2023),
    sections 3.1 and 3.2.
    """

    damping: float = 0.01
    iterations: int = 50
    name = "hard-thresholding"
    needs = frozenset({GradientSamples})

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Search, then solve on the support; see :class:`Update` for the shapes."""
        fisher = statistics[GradientSamples].fisher(self.damping)
        search = _Search(fisher, weight, choose)
        found = search.run(torch.where(choose(weight), weight, 0).flatten(), self.iterations)
        mask = search.support(found)
        solved = search.solved(mask)
        return solved.reshape(weight.shape).to(weight.dtype), mask.reshape(weight.shape)


class _Search:
    """Iterative hard thresholding of the weights of one layer, as a vector."""

    def __init__(self, fisher: EmpiricalFisher, weight: torch.Tensor, choose: MaskChooser) -> None:
        self.fisher, self.dense, self.choose = fisher, weight.flatten(), choose
        # A weight whose gradient is always zero cannot matter; it competes as zero.
        self.idle = ~fisher.gradients.any(0)
        self.first = 1 / fisher.largest()

    def run(self, weight: torch.Tensor, iterations: int) -> torch.Tensor:
        """Return weights that no thresholded step lowers the objective of."""
        count = min(len(weight), _ACTIVE * self.choose.keep)
        active = weight != 0
        active[self.dense.abs().topk(count).indices] = True
        part, whole = _Part(self, active), _Part(self, torch.ones_like(active))
        for _ in range(iterations):
            moved = part.step(weight)
            if moved is None:
                moved = whole.step(weight)
                if moved is None:
                    break
                active = active | (moved != 0)
                part = _Part(self, active)
            settled = torch.equal(moved != 0, weight != 0)
            weight = self.solved(moved != 0) if settled else moved
        return weight

    def support(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the mask of the largest entries that the pattern allows."""
        size = weight.abs().masked_fill(self.idle, 0).reshape(self.choose.shape)
        return self.choose.pattern.mask(size, self.choose.keep).flatten()

    def solved(self, mask: torch.Tensor) -> torch.Tensor:
        """Return the weights on a support that minimise the objective."""
        lost = self.fisher.gradients @ torch.where(mask, 0, -self.dense)
        kept = self.fisher.restricted(mask)
        right = kept.gradients.mT @ lost / len(lost)
        result = torch.zeros_like(self.dense)
        result[mask] = (self.dense[mask] - kept.solve(right)).to(result.dtype)
        return result


class _Part:
    """The objective of a search as a function of some of its weights, the others being zero."""

    def __init__(self, search: _Search, active: torch.Tensor) -> None:
        self.search, self.places = search, active.nonzero().squeeze(1)
        gradients = search.fisher.gradients
        self.gradients = gradients if bool(active.all()) else gradients[:, self.places]
        self.dense = search.dense[self.places]
        self.fixed = gradients @ (-search.dense * ~active)

    def step(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Return the best of steps of every length, None where none lowers the objective."""
        here = weight[self.places]
        least, seen = self.objective(here)
        downhill = self.search.fisher.ridge * (here - self.dense)
        downhill += self.gradients.mT @ seen / len(seen)
        best = None
        for doubling in range(_DOUBLINGS):
            tried = self._spread(here - self.search.first * 2**doubling * downhill)
            tried = tried * self.search.support(tried)
            value, _ = self.objective(tried[self.places])
            if value < least:
                best, least = tried, value
        return best

    def objective(self, values: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Return it, but for a constant, and the change of every sample's loss."""
        change = values - self.dense
        seen = self.gradients @ change + self.fixed
        ridge = self.search.fisher.ridge * change.double().square().sum()
        return float(seen.double().square().mean() + ridge) / 2, seen

    def _spread(self, values: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(self.search.dense).index_copy(0, self.places, values)
