"""The PQ index, and the budget from what it says that a layer needs."""

from __future__ import annotations

__all__ = ["PQIndex", "pq_index"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..core.errors import OptionError
from .budgets import Budget, LayerSummary, scale_to
from .scores import Magnitude


def pq_index(weights: torch.Tensor, p: float = 0.5, q: float = 1.0) -> float:
    """Return the PQ index of weights: the larger, the sparser, and the more can be removed.

    Of a network while it is pruned round by round, take the weights that are left: the index falls
    while pruning regularises, rises near the limit of compression, and falls as the model
    collapses.

    Parameters
    ----------
    weights : Tensor
        Of any shape; zeros count.
    p, q : float, default 0.5 and 1.0
        Of the norms, ``0 < p <= 1`` and ``q >= 1``, not both 1; the paper's experiments take these.

    Returns
    -------
    float
        ``1 - d^(1/q - 1/p) |w|_p / |w|_q`` of `d` weights, in [0, 1): 0 where all are of one
        magnitude, or all zero.

    Raises
    ------
    OptionError
        If `p` or `q` is out of range, or there is no weight.

    References
    ----------
    Diao et al., Pruning Deep Neural Networks from a Sparsity Perspective (2023), definition 1.

    Examples
    --------
    >>> round(pq_index(torch.tensor([1.0, 1.0, 0.0, 0.0])), 6)
    0.5
    """
    _check(p, q)
    sizes = weights.detach().flatten().double().abs()
    if not sizes.numel():
        raise OptionError("the PQ index is of at least one weight, and there are none")
    largest = sizes.max()
    if not largest > 0:
        return 0.0
    # Means instead of sums: the power of d is in them.
    means = [(sizes / largest).pow(order).mean().pow(1 / order) for order in (p, q)]
    return max(0.0, 1 - float(means[0] / means[1]))


@dataclass(frozen=True)
class PQIndex(Budget):
    """In proportion to the share of weights that the PQ index of a layer bounds from below.

    Parameters
    ----------
    p, q : float, default 0.5 and 1.0
        See :func:`pq_index`.

    Notes
    -----
    Of d weights with index I at least ``d (1 + eta)^(-q / (q - p)) (1 - I)^(p q / (q - p))``
    must stay for the others to hold no more than the share eta of the norm; eta is the same for all
    layers, so that it does not change their proportions. The densities are scaled to the one that
    is asked for. In the paper the bound says that too, anew after every round of retraining.

    References
    ----------
    Diao et al., Pruning Deep Neural Networks from a Sparsity Perspective (2023), theorem 2 and
    algorithm 1.
    """

    p: float = 0.5
    q: float = 1.0
    name = "pq-index"
    surveys = True
    score = Magnitude()

    def __post_init__(self) -> None:
        _check(self.p, self.q)

    def __call__(self, layers: Sequence[LayerSummary], density: float) -> list[float]:
        """Return the densities, capped at 1 with the excess shared by the others."""
        power = self.p * self.q / (self.q - self.p)
        raw = [(1 - pq_index(layer.scores, self.p, self.q)) ** power for layer in layers]
        return scale_to(raw, [layer.size for layer in layers], density)


def _check(p: float, q: float) -> None:
    if not (0 < p <= 1 <= q and p < q):
        raise OptionError(f"p {p} and q {q} are out of range; 0 < p <= 1 <= q, and p below q")
