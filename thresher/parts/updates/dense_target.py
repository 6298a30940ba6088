"""A target that the dense model sets: what a layer would give if nothing before it was pruned."""

from __future__ import annotations

__all__ = ["DenseTarget"]

from dataclasses import dataclass

import torch

from ..chooser import MaskChooser
from ..linalg import inverse_cholesky
from ..moments import Cross, Gram, HeldOut, Moment
from ..statistics import Statistics
from .base import Update
from .obs import OBS

#: A strength near the best one of most layers, where no samples can tell.
_UNKNOWN = 0.5


@dataclass(frozen=True)
class DenseTarget(Update):
    """Prune what comes nearest to the dense model's outputs on the pruned model's inputs.

    Parameters
    ----------
    update : Update, default OBS()
        Prunes the weights that are to be imitated.
    strength : float, optional
        In [0, 1]: 0 imitates the dense weights on the inputs of the pruned model, 1 the dense
        model's outputs. By default each layer's own: the one that comes nearest to the dense
        model's outputs for every fourth sample, fitted to the others. 0.5 where there are fewer,
        or the layers of a block are not pruned in stages: each would make up for all of the same
        difference, which SmolLM2 does not survive (perplexity 74 at 50 %, for 34 with 0.5).
    damping : float, default 0.01
        Ridge towards the dense weights, relative to the mean diagonal of the second moment.

    Notes
    -----
    With H the second moment of the layer's inputs x, C the cross moment ``E[x_dense x^T]`` and r
    the ridge, weights W' that minimise ``E|W x_dense - W' x|^2 + r |W - W'|^2`` are
    ``W (C + r I) (H + r I)^-1``, so that any update that imitates weights can imitate these::

        W + strength W (C - H) (H + r I)^-1

    The error of W + s D, with D fitted to other samples, is quadratic in the strength s, so that
    the best one on samples with the moments H' and C' is
    ``<W (C' - H'), D> / <D H', D>``, held to [0, 1].

    Where the dense model's inputs are not known for every token, the weights stay.

    References
    ----------
    Arai and Ichikawa, Quantization Error Propagation (2025, arXiv 2504.09629), does so for
    quantised layers, with the strength against overfitting.
    """

    update: Update = OBS()
    strength: float | None = None
    damping: float = 0.01
    name = "dense-target"

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """Both moments, and what `update` needs."""
        own: set[type[Moment]] = {Gram, Cross} | ({HeldOut} if self.strength is None else set())
        return self.update.needs | own

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Correct the weights, then prune them; see :class:`Update` for the shapes."""
        if statistics.saw_every_token(Cross):
            gram = statistics[Gram]
            factor = gram.inverse_factor(self.damping)
            change = weight @ (statistics[Cross].value - gram.value)
            strength = self._strength(weight, statistics)
            weight = weight + strength * ((change @ factor.mT) @ factor)
        return self.update(weight, choose, statistics)

    def _strength(self, weight: torch.Tensor, statistics: Statistics) -> float | torch.Tensor:
        """Return the strength, for each matrix of a stack if it is chosen."""
        if self.strength is not None:
            return self.strength
        if not statistics.saw_any(HeldOut):
            return _UNKNOWN
        held, count = statistics[HeldOut], int(statistics[Gram].count)
        share = int(held.count) / count
        if share == 1:
            return _UNKNOWN
        # In place where nobody else holds them: these are the largest matrices of all.
        gram = statistics[Gram].value.sub(held.gram, alpha=share).div_(1 - share)
        moved = statistics[Cross].value.sub(held.cross, alpha=share).div_(1 - share).sub_(gram)
        factor = inverse_cholesky(gram, self.damping)
        fitted = (weight @ moved @ factor.mT) @ factor
        gain = _inner(weight @ (held.cross - held.gram), fitted)
        cost = _inner(fitted @ held.gram, fitted)
        return torch.where(cost > 0, gain / cost, _UNKNOWN).clamp(0, 1)


def _inner(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first * second).sum((-2, -1), keepdim=True)
