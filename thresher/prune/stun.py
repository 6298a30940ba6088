"""STUN: one expert of those that are alike stays, then its weights are pruned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform

from ..core.card import Card, Catalogued
from ..core.errors import OptionError
from .expert_recipe import ExpertRecipe, Seen
from .recipe import Recipe
from .wanda import Wanda


@dataclass(frozen=True)
class STUN(ExpertRecipe, Catalogued):
    """Remove all but one of experts that are alike, then the least weights of what is left.

    Experts are alike whose routers' rows are near. Of a cluster of them the one stays whose weights
    are nearest to the mean.

    Parameters
    ----------
    density, least, few
        See :class:`~thresher.prune.expert_recipe.ExpertRecipe`.
    experts : float, default 0.8
        Share of the layers' weights that stays when experts are removed; of these, `unstructured`
        keeps what makes up `density` in all. Not below `density`.
    unstructured : Recipe, default Wanda()
        How the weights that stay are pruned.
    coactivation : float, default 0.0
        How much experts count as alike which are chosen by the same tokens.

    Raises
    ------
    OptionError
        If an option is out of range.

    References
    ----------
    Lee et al., STUN (2024), sections 4.1 and 4.2.

    Notes
    -----
    Two experts are as alike as ``-lambda_1 ||W_i - W_j|| + lambda_2 a_ij`` says, W being rows of
    the router and a how often the same tokens choose both. This was checked against two summaries
    of the paper, whose text was not at hand; of its largest model the lambdas are 1 and 0, the
    default. Here both terms are divided by their largest, and `coactivation` is the second
    lambda over the first. That clusters are merged by average linkage could not be checked. Where
    fewer than three experts are in a cluster the paper stores their mean; here one always stays.
    """

    experts: float = 0.8
    unstructured: Recipe = Wanda()
    coactivation: float = 0.0
    card = Card(
        name="stun",
        title="STUN: Structured-Then-Unstructured Pruning for Scalable MoE Pruning",
        authors="Jaeseong Lee et al.",
        year=2024,
        arxiv="2409.06211",
        summary="Keep one of experts that are alike, then prune the weights of those.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.experts < 1:
            raise OptionError(f"experts {self.experts} is out of range; it is above 0 and below 1")
        if self.coactivation < 0:
            raise OptionError(f"coactivation {self.coactivation} is out of range; it is 0 or above")

    @property
    def then(self) -> Recipe:
        """What prunes the weights of the experts that stay."""
        return self.unstructured

    @property
    def of_experts(self) -> float:
        """The share that stays when experts are removed."""
        return max(self.experts, self.target)

    def choose(self, mixture: Seen) -> list[int]:
        """Keep one of each cluster; see :meth:`ExpertRecipe.choose`."""
        free = (~mixture.always).nonzero().flatten()
        kept = mixture.always.nonzero().flatten().tolist()
        flat = torch.cat([w.double().flatten(1) for w in mixture.weights], 1)
        labels = self._clusters(mixture, free, mixture.keep - len(kept))
        for label in np.unique(labels):
            members = free[torch.from_numpy(labels == label)]
            off = (flat[members] - flat[members].mean(0)).square().sum(1)
            kept.append(int(members[off.argmin()]))
        return sorted(kept)

    def _clusters(self, mixture: Seen, free: torch.Tensor, count: int) -> np.ndarray:
        """Return which of `count` clusters some experts are in."""
        if count < 1:
            return np.zeros(0, dtype=int)
        if len(free) == 1:
            return np.zeros(1, dtype=int)
        rows = mixture.rows[free].double()
        far = torch.cdist(rows, rows)
        far = far / far.max().clamp(min=1e-30)
        together = mixture.routing.together[free][:, free]
        alike = together / together.max().clamp(min=1e-30)
        far -= self.coactivation * alike
        # Distances must not be negative; one constant for all changes no order.
        tree = linkage(squareform((far - far.min()).numpy(), checks=False), "average")
        found: np.ndarray = cut_tree(tree, n_clusters=count)[:, 0]
        return found
