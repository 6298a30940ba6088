"""Levels: how a block's sparsity is shared out among its sites."""

from __future__ import annotations

__all__ = ["Greedy", "Levels", "UniformLevels"]

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..core.errors import DataError
from ..core.named import Spelled
from ..core.options import check_number, check_whole
from ..parts.activations.selection import Selection
from ..parts.activations.sites import Site
from ..stream.visit import Visit

Choose = Callable[[Site, float], Selection]


class Levels(Spelled, ABC):
    """Base class of levels."""

    kind = "levels"

    @abstractmethod
    def __call__(
        self, visit: Visit, sites: Sequence[Site], choose: Choose, sparsity: float
    ) -> list[float]:
        """Return the sparsity of every site, in [0, 1).

        Parameters
        ----------
        visit : Visit
            Of the unit, whose sites have no selection; they are left so.
        sites : sequence of Site
            Of the unit.
        choose : callable
            ``choose(site, level)`` returns a selection.
        sparsity : float
            Of the unit: the levels average to it, weighted by the weights that sites save.
        """


@dataclass(frozen=True)
class UniformLevels(Levels):
    """The same for all."""

    name = "uniform"

    def __call__(
        self, visit: Visit, sites: Sequence[Site], choose: Choose, sparsity: float
    ) -> list[float]:
        """Return `sparsity` for every site."""
        return [sparsity] * len(sites)


@dataclass(frozen=True)
class Greedy(Levels):
    """Raise the site by steps that harms the block's output least for the weights it saves.

    Parameters
    ----------
    step : float, default 0.05
        Share of the block's weights that a step saves; half of it takes twice the time.
    samples : int, default 1
        How many samples of calibration go through the block for each trial.

    Notes
    -----
    A step of the paper saves the same number of weights wherever it is taken, so that steps compare
    by error alone; here a site takes a quarter of its own weights at most, and errors are divided
    by what was saved. A trial is repeated only when a step has made it out of date and it would
    still come first, since squared errors grow with every step. A block that is seen in passes of
    the whole model alone has the same level everywhere.

    References
    ----------
    Liu et al., Training-Free Activation Sparsity in Large Language Models (2024), algorithm 1.
    """

    step: float = 0.05
    samples: int = 1
    name = "greedy"

    def __post_init__(self) -> None:
        check_number("step, the share of a block's weights,", self.step, above=0, most=1)
        check_whole("samples", self.samples)

    def __call__(
        self, visit: Visit, sites: Sequence[Site], choose: Choose, sparsity: float
    ) -> list[float]:
        """Return the levels that steps have come to."""
        if len(sites) < 2 or not visit.alone or not sparsity:
            return [sparsity] * len(sites)
        search = _Search(self, visit, sites, choose, sparsity)
        try:
            return search.run()
        finally:
            search.restore()


#: No site alone goes beyond this level, unless the block does.
_MOST, _LARGEST_MOVE = 0.95, 0.25


class _Search:
    def __init__(
        self,
        greedy: Greedy,
        visit: Visit,
        sites: Sequence[Site],
        choose: Choose,
        sparsity: float,
    ) -> None:
        self.greedy, self.visit, self.sites, self.choose = greedy, visit, sites, choose
        self.weights = [site.weights for site in sites]
        self.left = sparsity * sum(self.weights)
        self.most = max(_MOST, sparsity)
        self.levels = [0.0] * len(sites)
        self.dense = self._outputs()
        for site in sites:
            site.attach(choose(site, 0.0))

    def run(self) -> list[float]:
        error, turn = 0.0, 0
        waiting = [(0.0, i, -1, 0.0) for i in range(len(self.sites))]
        while self.left > 1e-9 * sum(self.weights) and waiting:
            _, i, tried, found = heapq.heappop(waiting)
            if tried == turn:
                self._raise(i)
                error, turn = found, turn + 1
                heapq.heappush(waiting, (0.0, i, -1, 0.0))
                continue
            move = self._move(i)
            if move <= 0:
                continue
            found = self._error_at(i, self.levels[i] + move)
            heapq.heappush(waiting, ((found - error) / (move * self.weights[i]), i, turn, found))
        return self.levels

    def restore(self) -> None:
        for site in self.sites:
            site.remove()

    def _move(self, i: int) -> float:
        """Return by how much a site's level rises in a step."""
        step = self.greedy.step * sum(self.weights) / self.weights[i]
        rest = self.left / self.weights[i]
        return min(step, rest, _LARGEST_MOVE, self.most - self.levels[i])

    def _raise(self, i: int) -> None:
        move = self._move(i)
        self.levels[i] += move
        self.left -= move * self.weights[i]
        self.sites[i].attach(self.choose(self.sites[i], self.levels[i]))

    def _error_at(self, i: int, level: float) -> float:
        """Return the squared error of the block's output with one site at another level."""
        site = self.sites[i]
        site.attach(self.choose(site, level))
        try:
            found = self._outputs()
        finally:
            site.attach(self.choose(site, self.levels[i]))
        pairs = zip(found, self.dense, strict=True)
        return sum(float((a.float() - b.float()).square().sum()) for a, b in pairs)

    def _outputs(self) -> list[torch.Tensor]:
        outputs = self.visit.outputs(most=self.greedy.samples)
        if not outputs:
            raise DataError(
                f"block {self.visit.unit.name!r} is not reached by the first sample, so that its "
                "levels cannot be searched for; use levels='uniform'"
            )
        return outputs
