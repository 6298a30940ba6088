"""A recipe: which score, pattern, budget and update prune a model, and to what density."""

from __future__ import annotations

__all__ = ["Recipe"]

import dataclasses
import numbers
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from ..core.errors import OptionError
from ..core.notebook import html_of_parts
from ..core.options import share_hint
from ..parts.budgets import Budget, Uniform
from ..parts.moments import Moment
from ..parts.patterns import Pattern, Unstructured
from ..parts.scores import Score
from ..parts.statistics import Statistics
from ..parts.tokens import EqualTokens, TokenWeights
from ..parts.updates import Keep, Update
from ..stream.visit import Visit
from .written import Written


@dataclass(frozen=True)
class Recipe(Written):
    """Parts that together prune a trained model in one shot.

    Parameters
    ----------
    score : Score
        What matters.
    pattern : Pattern, default Unstructured()
        Which supports are allowed.
    budget : Budget, default Uniform()
        How much each layer keeps.
    update : Update, default Keep()
        How survivors make up for the removed.
    density : float, optional
        Share of the prunable weights to keep, in (0, 1]; by default what the pattern
        implies, such as 0.5 for 2:4.
    tokens : TokenWeights, default EqualTokens()
        How much the moments hear of each token.
    stages : bool, default False
        Whether the layers of a block are pruned one group after another, each calibrated on what
        the pruned groups before it give, instead of all on what the dense block gives. Samples
        wait inside the block meanwhile, with what it has computed; where they may not, or states
        are on disk, it takes a pass of the block for every group.

    Raises
    ------
    OptionError
        If `density` is out of range, missing, or at odds with the pattern.

    Examples
    --------
    >>> from thresher.parts import scores, patterns
    >>> Recipe(scores.Magnitude(), patterns.NM(2, 4)).target
    0.5
    >>> Recipe.from_yaml("{score: Magnitude, pattern: 2:4}").target
    0.5
    """

    #: What lines of progress say of a block.
    done: ClassVar[str] = "pruned"

    score: Score
    pattern: Pattern = Unstructured()
    budget: Budget = Uniform()
    update: Update = Keep()
    density: float | None = None
    tokens: TokenWeights = EqualTokens()
    stages: bool = False

    def __post_init__(self) -> None:
        if self.density is None:
            return
        if not isinstance(self.density, numbers.Real) or not 0 < self.density <= 1:
            raise OptionError(
                f"density {self.density} is out of range; it is the share of weights to keep, "
                f"above 0 and at most 1{share_hint(self.density)}"
            )
        implied = self.pattern.density
        if implied is not None and abs(implied - self.density) > 1e-9:
            raise OptionError(
                f"pattern {self.pattern.spec} keeps {implied:g} of the weights, which contradicts "
                f"density {self.density:g}; drop one of the two"
            )

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html_of_parts(self)

    @property
    def target(self) -> float:
        """The density to reach."""
        density = self.pattern.density if self.density is None else self.density
        if density is None:
            raise OptionError("say how much to keep: density=0.5, or a pattern such as '2:4'")
        return density

    def settle(self) -> Self:
        """Return this recipe, if it says how much to keep.

        Raises
        ------
        OptionError
            If neither `density` nor the pattern does.

        Warns
        -----
        UserWarning
            If the pattern fixes every layer's density, so that the budget changes nothing.
        """
        self.target  # noqa: B018 - raises
        if self.pattern.density is not None and not isinstance(self.budget, Uniform):
            warnings.warn(
                f"pattern {self.pattern.spec} keeps {self.pattern.density:g} of every layer, so "
                f"that budget {self.budget.name!r} changes nothing; leave one of the two away",
                stacklevel=3,
            )
        return self

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """The moments that score and update need.

        Samples are held out where layers are pruned in stages alone: they judge a layer as if no
        other layer of its block made up for the same difference.
        """
        needs = self.score.needs | self.update.needs
        return frozenset(kind for kind in needs if self.stages or not kind.held_out)

    def together(
        self, visit: Visit, statistics: Mapping[str, Statistics], counts: Mapping[str, int]
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Prune layers of a unit that are not pruned each by itself; there are none by default.

        Parameters
        ----------
        visit : Visit
            Of the unit, dense; it is left as it is.
        statistics : mapping of str to Statistics
            By the names of layers that are about to be pruned.
        counts : mapping of str to int
            Weights to keep per layer.

        Returns
        -------
        dict of str to (Tensor, Tensor)
            By the names of some of the layers, what an update returns: weight and mask.
        """
        return {}

    def with_options(
        self,
        density: float | None = None,
        pattern: str | Pattern | None = None,
        budget: str | Budget | None = None,
        update: str | Update | None = None,
        tokens: str | TokenWeights | None = None,
        stages: bool | None = None,
    ) -> Recipe:
        """Return this recipe with some parts replaced; None keeps a part.

        Parameters
        ----------
        density : float, optional
            Share of weights to keep.
        pattern, budget, update, tokens : str or part, optional
            Names are looked up, see :meth:`thresher.core.named.Spelled.parse`.
        stages : bool, optional
            See :class:`Recipe`.
        """
        changes: dict[str, object] = {}
        if density is not None:
            changes["density"] = density
        if pattern is not None:
            changes["pattern"] = Pattern.parse(pattern)
        if budget is not None:
            changes["budget"] = Budget.parse(budget)
        if update is not None:
            changes["update"] = Update.parse(update)
        if tokens is not None:
            changes["tokens"] = TokenWeights.parse(tokens)
        if stages is not None:
            changes["stages"] = stages
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
