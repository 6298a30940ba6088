"""A target that the dense model sets: what a layer would give if nothing before it was pruned."""

from __future__ import annotations

__all__ = ["DenseTarget"]

from dataclasses import dataclass

import torch

from ..chooser import MaskChooser
from ..moments import Cross, Gram, Moment
from ..statistics import Statistics
from .base import Update
from .obs import OBS


@dataclass(frozen=True)
class DenseTarget(Update):
    """Prune what comes nearest to the dense model's outputs on the pruned model's inputs.

    Parameters
    ----------
    update : Update, default OBS()
        Prunes the weights that are to be imitated.
    strength : float, default 0.5
        In [0, 1]: 0 imitates the dense weights on the inputs of the pruned model, 1 the dense
        model's outputs.
    damping : float, default 0.01
        Ridge towards the dense weights, relative to the mean diagonal of the second moment.

    Notes
    -----
    With H the second moment of the layer's inputs x, C the cross moment ``E[x_dense x^T]`` and r
    the ridge, weights W' that minimise ``E|W x_dense - W' x|^2 + r |W - W'|^2`` are
    ``W (C + r I) (H + r I)^-1``, so that any update that imitates weights can imitate these::

        W + strength W (C - H) (H + r I)^-1

    Where the dense model's inputs are not known for every token, the weights stay.

    References
    ----------
    Arai and Ichikawa, Quantization Error Propagation (2025, arXiv 2504.09629), does so for
    quantised layers, with the strength against overfitting.
    """

    update: Update = OBS()
    strength: float = 0.5
    damping: float = 0.01
    name = "dense-target"

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """Both moments, and what `update` needs."""
        return self.update.needs | {Gram, Cross}

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Correct the weights, then prune them; see :class:`Update` for the shapes."""
        if statistics.saw_every_token(Cross):
            gram = statistics[Gram]
            factor = gram.inverse_factor(self.damping)
            change = weight @ (statistics[Cross].value - gram.value)
            weight = weight + self.strength * (change @ factor.mT) @ factor
        return self.update(weight, choose, statistics)
