"""2SSP: neurons by the size of their activations, then whole attentions by the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.card import Card, Catalogued
from ..core.errors import OptionError
from ..parts.rankings import ByScore, Ranking
from ..parts.scores import InputNorm
from ..parts.spreads import PerKind, Removed, Spread
from .unit_recipe import UnitRecipe
from .unit_search import Attention, Candidates


@dataclass(frozen=True)
class TwoSSP(UnitRecipe, Catalogued):
    """Remove the neurons that are active least, then the attentions that the loss misses least.

    All blocks keep as many neurons. An attention is removed by setting its weights to zero, which
    is exact; its configuration cannot be told so for one block alone, and engines still
    multiply the zeros.

    Parameters
    ----------
    ranking, spread, update, density, stages, stock, bias, heads
        See :class:`~thresher.prune.unit_recipe.UnitRecipe`.
    alpha : float, default 1.5
        The larger, the more attentions go, and the fewer neurons.
    most : int, default 1
        Samples of the calibration data that the loss is taken on, the first ones. Every attention
        that is left is tried for each that goes, which takes most of the time.

    Raises
    ------
    OptionError
        If an option is out of range.

    References
    ----------
    Sandri et al., 2SSP (2025), sections 3.1 to 3.3.

    Notes
    -----
    Of B attentions ``round(B s^(F / (alpha A)))`` go at sparsity s, F being the weights of a
    block's other layers and A those of its attention: as recalled of section 3.3. It could not be
    checked: the paper's text was not at hand, and its code is under the GPL.
    A neuron's activation is measured over all tokens together, where the paper takes
    the mean of the norms of sequences.
    """

    searches = True
    ranking: Ranking = ByScore(InputNorm())
    spread: Spread = PerKind()
    stock: bool = True
    heads: bool = False
    alpha: float = 1.5
    most: int = 1
    card = Card(
        name="two-ssp",
        title="2SSP: A Two-Stage Framework for Structured Pruning of LLMs",
        authors="Fabrizio Sandri et al.",
        year=2025,
        arxiv="2501.17771",
        summary="Remove neurons that are active least, then whole attentions by the loss.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise OptionError(f"alpha {self.alpha} is out of range; it is above 0")
        if self.most < 1:
            raise OptionError(f"most {self.most} is out of range; it is 1 sample or more")

    def choose(self, candidates: Candidates, target: float) -> tuple[Removed, Sequence[Attention]]:
        """Remove neurons first; see :meth:`UnitRecipe.choose`."""
        attentions = candidates.attentions
        count = self.attentions_to_remove(candidates, attentions, target)
        size = sum(each.weights for each in attentions) // max(1, len(attentions))

        def weights(removed: Removed) -> int:
            return candidates.weights(removed) - (count * size if removed else 0)

        removed = self.spread(candidates.groups, weights, target)
        gone: list[Attention] = []
        for _ in range(count):
            left = [each for each in attentions if each not in gone]
            losses = [candidates.loss(removed, [*gone, each], self.most) for each in left]
            gone.append(left[losses.index(min(losses))])
        return removed, gone

    def attentions_to_remove(
        self, candidates: Candidates, attentions: Sequence[Attention], target: float
    ) -> int:
        """Return how many attentions go, so that `target` weights stay in all."""
        if not attentions:
            return 0
        whole = candidates.weights({})
        inside = sum(each.weights for each in attentions)
        exponent = (whole - inside) / (self.alpha * inside)
        return round(len(attentions) * (1 - target / whole) ** exponent)
