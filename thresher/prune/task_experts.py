"""Task-specific expert pruning: the experts that a task's tokens choose stay."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..parts.experts import ExpertScore, GateWeight
from .expert_recipe import ExpertRecipe, Seen


@dataclass(frozen=True)
class TaskExperts(ExpertRecipe, Catalogued):
    """Remove the experts that the tokens of one task give least weight to.

    What is left may be one expert in every block, which is a dense model. The paper drops experts
    window by window while it trains: prune and train in turn, with falling densities.

    Parameters
    ----------
    density, least, few
        See :class:`~thresher.prune.expert_recipe.ExpertRecipe`.
    score : ExpertScore, default GateWeight()
        How proficient an expert is at the task.

    References
    ----------
    Chen et al., Task-Specific Expert Pruning for Sparse Mixture-of-Experts (2022), section 3.
    """

    score: ExpertScore = GateWeight()
    card = Card(
        name="task-experts",
        title="Task-Specific Expert Pruning for Sparse Mixture-of-Experts",
        authors="Tianyu Chen et al.",
        year=2022,
        arxiv="2206.00277",
        summary="Remove the experts that a task's tokens give least weight to, down to one.",
    )

    def choose(self, mixture: Seen) -> list[int]:
        """Keep those of the highest scores; see :meth:`ExpertRecipe.choose`."""
        scores = self.score(mixture.routing)
        judged = ~mixture.borrowing & ~mixture.always
        scores[mixture.borrowing] = scores[judged].mean() if bool(judged.any()) else 0.0
        scores[mixture.always] = float("inf")
        best = scores.argsort(descending=True, stable=True)[: mixture.keep]
        return sorted(best.tolist())
