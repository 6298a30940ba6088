"""A recipe: which entries of which tensors are dropped, by what rule, and how many."""

from __future__ import annotations

__all__ = ["ActivationRecipe"]

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from ..core.errors import OptionError
from ..core.options import check_number, share_hint
from ..parts.activations.importance import Importance, OwnSize
from ..parts.activations.rules import Quantile, Rule
from ..parts.activations.selection import Selection
from ..parts.activations.sites import Site
from ..parts.budgets import summarise
from ..parts.statistics import Statistics
from .granularity import Granularity, Inputs
from .levels import Levels, UniformLevels

#: So many sizes tell a quantile to a thousandth; sorting more would take longer than the passes.
_MOST_SIZES = 1 << 18


@dataclass(frozen=True)
class ActivationRecipe:
    """Parts that together make the activations of a trained model sparse.

    Parameters
    ----------
    importance : Importance, default OwnSize()
        What an entry is worth besides its magnitude.
    rule : Rule, default Quantile()
        How a share of the entries is dropped: below a threshold, or all but the largest.
    levels : Levels, default UniformLevels()
        How much each site of a block drops.
    granularity : Granularity, default Inputs()
        What the sites are.
    sparsity : float, optional
        Share of the sites' weights that a token need not read, in [0, 1).

    Raises
    ------
    OptionError
        If `sparsity` is out of range.

    Examples
    --------
    >>> ActivationRecipe(sparsity=0.5).target
    0.5
    """

    importance: Importance = OwnSize()
    rule: Rule = Quantile()
    levels: Levels = UniformLevels()
    granularity: Granularity = Inputs()
    sparsity: float | None = None

    def __post_init__(self) -> None:
        if self.sparsity is None:
            return
        try:
            check_number("sparsity, the share of inputs to drop,", self.sparsity, below=1)
        except OptionError as error:
            raise OptionError(f"{error}{share_hint(self.sparsity)}") from None

    @property
    def target(self) -> float:
        """The sparsity to reach."""
        if self.sparsity is None:
            raise OptionError("say how much to drop: sparsity=0.5 (--sparsity 0.5)")
        return float(self.sparsity)

    def with_options(
        self,
        sparsity: float | None = None,
        levels: str | Levels | None = None,
        rule: str | Rule | None = None,
    ) -> Self:
        """Return this recipe with some parts replaced; None keeps a part.

        Parameters
        ----------
        sparsity : float, optional
            Share to drop.
        levels, rule : str or part, optional
            Names are looked up, see :meth:`thresher.core.named.Spelled.parse`.
        """
        changes: dict[str, object] = {}
        if sparsity is not None:
            changes["sparsity"] = sparsity
        if levels is not None:
            changes["levels"] = Levels.parse(levels)
        if rule is not None:
            changes["rule"] = Rule.parse(rule)
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def selector(
        self, sites: Sequence[Site], statistics: Mapping[str, Statistics]
    ) -> Callable[[Site, float], Selection]:
        """Return what makes selections for sites, each of any sparsity.

        Parameters
        ----------
        sites : sequence of Site
            All of which were seen.
        statistics : mapping of str to Statistics
            Of the sites' watched layers, by name.
        """
        seen = {site.name: self._sizes(site, statistics) for site in sites}

        def select(site: Site, sparsity: float) -> Selection:
            return self.rule(site, *seen[site.name], sparsity)

        return select

    def _sizes(
        self, site: Site, statistics: Mapping[str, Statistics]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the sizes times scale that were seen, in order and thinned, and the scale."""
        sizes, scale = site.sizes(statistics), self.importance(site, statistics)
        thinned = sizes[:: -(-sizes.numel() // _MOST_SIZES)]
        scaled = thinned if scale is None else thinned * scale
        return summarise(site.name, scaled.shape, 0, scaled).scores, scale
