"""A recipe for units of coupled groups: what they cost, which of them go, who makes up for them."""

from __future__ import annotations

__all__ = ["UnitRecipe"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..parts.moments import Moment, Norm
from ..parts.rankings import Ranking
from ..parts.spreads import Removed, Spread
from ..parts.updates import Keep, Update
from .smaller_recipe import SmallerRecipe
from .unit_search import Attention, Candidates


@dataclass(frozen=True)
class UnitRecipe(SmallerRecipe):
    """Parts that together make a trained model smaller.

    Parameters
    ----------
    ranking : Ranking
        What every unit costs.
    spread : Spread
        How many units each group loses.
    update : Update, default Keep()
        How the layers that took what was removed make up for it.
    density : float, optional
        Share of the layers' weights to keep, in (0, 1).
    stages : bool, default False
        Whether the layers of a block make up one after another, each for what those before it
        have become. It takes a pass of the block for every one.
    stock : bool, default False
        Whether a model of transformers loses only what its configuration can say, so that it
        loads everywhere.
    bias : bool, default False
        Whether the mean of what was removed goes into the bias of the layers that took it; those
        without a bias get one.
    heads : bool, default True
        Whether units that are several columns of a layer, such as attention heads, may go.

    Attributes
    ----------
    searches : bool
        Whether :meth:`choose` takes the loss of the model.

    Raises
    ------
    OptionError
        If `density` is out of range.
    """

    removes: ClassVar[str] = "units"
    ranking: Ranking
    spread: Spread
    update: Update = Keep()
    density: float | None = None
    stages: bool = False
    stock: bool = False
    bias: bool = False
    heads: bool = True

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """The moments that the parts need."""
        more = {Norm} if self.bias or self.spread.by_change else set()
        return self.ranking.needs | self.update.needs | more

    def choose(self, candidates: Candidates, target: float) -> tuple[Removed, Sequence[Attention]]:
        """Choose what goes.

        Parameters
        ----------
        candidates : Candidates
            What may go.
        target : float
            How many weights of the layers are to stay.

        Returns
        -------
        removed : dict of str to list of int
            Units to remove, by group.
        attentions : sequence of Attention
            What is to be zero as a whole; none by default.

        Raises
        ------
        OptionError
            If more would stay with as few as may be left of each group; it says how many.
        """
        return self.spread(candidates.groups, candidates.weights, target), ()
