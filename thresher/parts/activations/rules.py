"""Rules: from the sizes of entries in calibration to the selection that drops a share of them."""

from __future__ import annotations

__all__ = ["PerToken", "Quantile", "Rule", "SplitByRank", "over", "quantile"]

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from ...core.errors import LayerError
from ...core.named import Spelled
from ...core.options import check_boolean, check_number
from ..forms import Columns, Rows
from .attached import INPUTS
from .selection import RankSplit, Selection, Threshold, TopK
from .sites import Site


class Rule(Spelled, ABC):
    """Base class of rules."""

    kind = "rule"

    @abstractmethod
    def __call__(
        self, site: Site, ordered: torch.Tensor, scale: torch.Tensor | None, sparsity: float
    ) -> Selection:
        """Return the selection for a site.

        Parameters
        ----------
        site : Site
            Whose entries are dropped.
        ordered : Tensor of shape (n,)
            Sizes times scale that calibration saw, evenly thinned, in ascending order.
        scale : Tensor of shape (channels,), optional
            What sizes were multiplied by.
        sparsity : float
            Share of the site's weights not to be read, in [0, 1).
        """

    def share(self, selection: Selection, site: Site, dropped: float) -> float:
        """Return the share of a site's weights that is not read where a share of entries drops."""
        return dropped


@dataclass(frozen=True)
class Quantile(Rule):
    """One threshold on size times scale, at the quantile of calibration.

    References
    ----------
    Liu et al., Training-Free Activation Sparsity in Large Language Models (2024), section 4.1.
    """

    name = "threshold"

    def __call__(
        self, site: Site, ordered: torch.Tensor, scale: torch.Tensor | None, sparsity: float
    ) -> Selection:
        """Return a threshold, for every channel its own where there is a scale."""
        bound = quantile(ordered, sparsity)
        threshold = bound if scale is None else over(bound, scale)
        return Threshold(threshold, site.positions, site.activation)


@dataclass(frozen=True)
class PerToken(Rule):
    """The same number of entries for every token.

    Parameters
    ----------
    straight_through : bool, default True
        Whether dropped entries hear the gradient that kept ones would when the model trains; False
        is the gradient of the product with the mask.

    References
    ----------
    Chen et al., WINA (2025), section 3.1; Li et al., The Lazy Neuron Phenomenon (2022), section 4;
    Wang et al., Q-Sparse (2024), section 2, for gradients that go straight through.
    """

    straight_through: bool = True
    name = "top-k"

    def __post_init__(self) -> None:
        check_boolean("straight_through", self.straight_through)

    def __call__(
        self, site: Site, ordered: torch.Tensor, scale: torch.Tensor | None, sparsity: float
    ) -> Selection:
        """Return the largest entries' selection."""
        kept = round((1 - sparsity) * site.channels)
        worth = ordered.new_ones(()) if scale is None else scale
        return TopK(worth, kept, site.positions, site.activation, self.straight_through)


@dataclass(frozen=True)
class SplitByRank(Rule):
    """A threshold, and a matrix of low rank for what is below it.

    Parameters
    ----------
    ratio : float, default 0.95
        Share of the weights to be read that go to kept entries; the rest goes to the two factors of
        the matrix of low rank.

    References
    ----------
    Zhang et al., R-Sparse: Rank-Aware Activation Sparsity for Efficient LLM Inference (2025),
    section 4; 0.95 is the ratio of its uniform recipe.
    """

    ratio: float = 0.95
    name = "rank-split"

    def __post_init__(self) -> None:
        check_number("ratio, the share of reads for kept entries,", self.ratio, above=0, most=1)

    def __call__(
        self, site: Site, ordered: torch.Tensor, scale: torch.Tensor | None, sparsity: float
    ) -> Selection:
        """Return a threshold with the factors beside it."""
        layer = site.layer
        if site.side != INPUTS or not isinstance(layer.form, Rows | Columns):
            raise LayerError(
                f"layer {layer.name!r} has no split by rank, which is for the inputs of linear "
                "layers; leave it dense (exclude=, --exclude)"
            )
        ratio = self.ratio if sparsity > 0 else 1.0
        outputs, inputs = layer.shape
        rank = int((1 - ratio) * (1 - sparsity) * outputs * inputs / (outputs + inputs))
        # Only if no rank is paid for may all that is to be read go to entries.
        kept = 1 - sparsity - rank * (outputs + inputs) / (outputs * inputs)
        bound = quantile(ordered, 1 - kept)
        left, right = _factors(layer.matrix(), rank)
        held = layer.weight.dtype
        return RankSplit(
            bound if scale is None else over(bound, scale), left.to(held), right.to(held)
        )

    def share(self, selection: Selection, site: Site, dropped: float) -> float:
        """Return the share that is left when the factors are read."""
        assert isinstance(selection, RankSplit)
        return dropped - (selection.left.numel() + selection.right.numel()) / site.weights


def quantile(ordered: torch.Tensor, share: float) -> torch.Tensor:
    """Return the value that a share of the ascending values lies below, shape (); 0 for none."""
    if share <= 0:
        return ordered.new_zeros(())
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))].clone()


def over(bound: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return by how much an entry must exceed: nothing is kept that is multiplied by zeros."""
    return torch.where(bound > 0, bound / scale, torch.zeros_like(scale))


def _factors(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of the nearest matrix of a rank."""
    if not rank:
        return matrix[:, :0], matrix[:0]
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank] * values[:rank], right[:rank]
