"""Týr: how much every block loses is searched for, in models that are already refitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.card import Card, Catalogued
from ..core.errors import LayerError, OptionError
from ..parts import updates
from ..parts.evolution import Evolution, Genome
from ..parts.groups.shrink import silenced
from ..parts.moments import Cross
from ..parts.rankings import GreedyOBS, Ranking
from ..parts.spreads import Incremental, Ranked, Removed, Spread
from .likeness import Likeness
from .losses import default_loss
from .supernet import Supernet, alone
from .unit_recipe import UnitRecipe
from .unit_search import Attention, Candidates

#: How many changes make one offspring, at most.
_SHIFTS = 4
#: Widths of a group below and above the one that it has.
_LEVELS = 4


@dataclass(frozen=True)
class Tyr(UnitRecipe, Catalogued):
    """Remove heads and neurons, as many of each block as an evolutionary search finds best.

    Every group is pruned to nine widths, and its layers are refitted for each; what a block passes
    on to the next while that is done is the expectation over them. The search moves
    units from one block to another, so that as many weights stay, and takes what leaves the
    model's predictions nearest to the dense model's. Both are repeated around what was found with
    half the distance between widths. Blocks keep different widths.

    Parameters
    ----------
    ranking, spread, update, density, stages, stock, bias, heads
        See :class:`~thresher.prune.unit_recipe.UnitRecipe`. The spread is where the search
        starts, and `update` one that knows the pruned model's inputs alone.
    iterations : int, default 4
        How often widths are made and searched.
    interval : float, default 0.125
        Share of a group's units between its widths at first; one unit at least.
    search : Evolution, default Evolution()
        How long it searches, and by how many samples of the calibration data. The paper's is
        ``Evolution(generations=50, offspring=128)``.

    Raises
    ------
    OptionError
        If an option is out of range.

    References
    ----------
    Li et al., Týr-the-Pruner (2025), sections 2.2 to 2.4 and algorithms 1 to 4.

    Notes
    -----
    As the paper's experiments do, it compares predictions alone, of the two terms of equation 6; a
    ``loss=`` takes their place. Units of several columns cost what the exact error of them
    together is, where equation 4 averages over columns. What the search ends with is refitted on
    what the blocks before pass on as they are, which is what a further iteration would start
    from. Units that several blocks take, such as those of a residual stream, go as the spread says.
    """

    searches = True
    ranking: Ranking = GreedyOBS(first_order=True)
    spread: Spread = Incremental(first=1.0)
    update: updates.Update = updates.LeastSquares()
    iterations: int = 4
    interval: float = 0.125
    search: Evolution = Evolution()
    card = Card(
        name="tyr",
        title="Týr-the-Pruner: Structural Pruning LLMs via Global Sparsity Distribution "
        "Optimization",
        authors="Guanchen Li et al.",
        year=2025,
        arxiv="2503.09657",
        summary="Search how many heads and neurons each block loses, among refitted blocks.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise OptionError(f"iterations {self.iterations} is out of range; it is 1 or more")
        if not 0 < self.interval < 1:
            raise OptionError(
                f"interval {self.interval} is out of range; it is a share of units, above 0 and "
                "below 1"
            )
        if Cross in self.update.needs:
            raise OptionError(
                f"{self.update!r} compares with the dense model's inputs, which the search does "
                "not keep; use LeastSquares()"
            )

    def choose(self, candidates: Candidates, target: float) -> tuple[Removed, Sequence[Attention]]:
        """Search; see :meth:`UnitRecipe.choose`."""
        groups = alone(candidates)
        if not groups:
            raise LayerError(
                "no unit is taken by one block alone, between which the search could move "
                "it; choose another method"
            )
        removed = self.spread(candidates.groups, candidates.weights, target)
        counts = {group.name: len(removed.get(group.name, ())) for group in groups}
        shared = {name: units for name, units in removed.items() if name not in counts}
        loss: Callable[[Sequence[int]], float] = candidates.mean_loss
        if candidates.lossy is default_loss:
            loss = Likeness(candidates.model, candidates.samples)
        with silenced(candidates.model, candidates.coupled.kept(shared)):
            for iteration in range(self.iterations):
                interval = self.interval / 2**iteration
                grid = {g.name: _levels(g, counts[g.name], interval) for g in groups}
                net = Supernet(candidates, self.ranking, self.update, grid)
                counts = self._searched(groups, counts, grid, net, loss, len(candidates.samples))
        searched = {name: net.ranked[name].cheapest(n) for name, n in counts.items() if n}
        return shared | searched, ()

    def _searched(
        self,
        groups: Sequence[Ranked],
        counts: Mapping[str, int],
        grid: Mapping[str, Sequence[int]],
        net: Supernet,
        loss: Callable[[Sequence[int]], float],
        samples: int,
    ) -> dict[str, int]:
        """Return how many units each group loses in the best choice of widths found."""
        names = [group.name for group in groups]
        kinds = [(group.kind, group.size) for group in groups]
        widths = [len(grid[name]) for name in names]

        def judge(genome: Genome, indices: Sequence[int]) -> float:
            with net.using(dict(zip(names, genome, strict=True))):
                return loss(indices)

        best = self.search(
            tuple(grid[name].index(counts[name]) for name in names),
            lambda parent, rng: _shifted(parent, kinds, widths, rng),
            judge,
            samples,
        )
        return {name: grid[name][width] for name, width in zip(names, best, strict=True)}


def _levels(group: Ranked, count: int, interval: float) -> list[int]:
    """Return how many units go for each width of a group around a count."""
    apart = max(1, round(interval * group.size / group.step)) * group.step
    levels = range(count - _LEVELS * apart, count + _LEVELS * apart + 1, apart)
    return [level for level in levels if 0 <= level < group.size]


def _shifted(
    parent: Genome, kinds: Sequence[object], widths: Sequence[int], rng: np.random.Generator
) -> Genome:
    """Return widths of which some groups lose less, and others of their kind as much more.

    Few shifts are likelier than many, as in EvoPress.
    """
    found = list(parent)
    for _ in range(int(rng.integers(1, _SHIFTS + 1, 2).min())):
        fewer = [i for i, width in enumerate(found) if width > 0]
        if not fewer:
            break
        less = int(rng.choice(fewer))
        others = [
            i
            for i, width in enumerate(found)
            if i != less and kinds[i] == kinds[less] and width + 1 < widths[i]
        ]
        if others:
            found[less] -= 1
            found[int(rng.choice(others))] += 1
    return tuple(found)
