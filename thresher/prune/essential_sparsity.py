"""Essential sparsity: how much one-shot magnitude pruning leaves a model as good as it was."""

from __future__ import annotations

__all__ = ["EssentialSparsity", "SparsitySweep"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import OptionError
from ..parts.budgets import Budget, Global
from ..parts.coverage import find_layers
from ..parts.layers import Layer
from ..parts.patterns import NM, Unstructured
from ..parts.scores import Magnitude, Score
from .memory import prune
from .recipe import Recipe

_GRID = tuple(step / 20 for step in range(20))


@dataclass(frozen=True)
class SparsitySweep:
    """A metric along a grid of sparsities.

    Parameters
    ----------
    sparsities : tuple of float
        Shares of removed weights, ascending from 0.
    losses : tuple of float
        What each costs relative to the dense model's metric: 0.01 is one percent worse.
    tolerance : float
        Loss up to which a model counts as undamaged.
    """

    sparsities: tuple[float, ...]
    losses: tuple[float, ...]
    tolerance: float

    @property
    def knee(self) -> float:
        """The essential sparsity: the last one before the loss first exceeds the tolerance."""
        for before, after in zip(self.sparsities, self.losses[1:], strict=False):
            if not after <= self.tolerance:
                return before
        return self.sparsities[-1]

    @property
    def sharpness(self) -> float:
        """How many times steeper the loss grows beyond the knee than the tolerance allows up to it.

        The growth beyond is taken over the two next steps of the grid; it is compared with
        ``tolerance / knee``. Zero when the knee is at either end of the grid.
        """
        at = self.sparsities.index(self.knee)
        if at in (0, len(self.sparsities) - 1):
            return 0.0
        end = min(at + 2, len(self.sparsities) - 1)
        slope = (self.losses[end] - self.losses[at]) / (self.sparsities[end] - self.knee)
        return slope / (self.tolerance / self.knee)


@dataclass(frozen=True)
class EssentialSparsity(Catalogued):
    """Find the knee of a metric when weights are removed in one shot, smallest first.

    Parameters
    ----------
    tolerance : float, default 0.01
        Relative loss of the metric that still counts as undamaged.
    sparsities : sequence of float, default 0 to 0.95 in steps of 0.05
        Ascending from 0, below 1.
    group : int, optional
        Remove N of every `group` consecutive inputs instead of any weights; the grid is
        then ``0, 1 / group, ..., (group - 1) / group``.
    score : Score, default Magnitude()
        What decides which weights go first; :class:`~thresher.parts.scores.Random` gives the
        baseline.
    budget : Budget, default Global()
        How one sparsity is divided among layers; of no effect with a `group`.

    Raises
    ------
    OptionError
        If the tolerance is not positive or the grid is not ascending from 0 to below 1.

    References
    ----------
    Jaiswal et al., The Emergence of Essential Sparsity in Large Pre-trained Models: The
    Weights that Matter (2023), section 3.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(4, 1, bias=False)
    >>> model.weight.data = torch.tensor([[0.0, 0.0, 1.0, 2.0]])
    >>> found = EssentialSparsity(group=4).sweep(model, lambda m: float(m.weight.sum()))
    >>> found.knee
    0.5
    """

    tolerance: float = 0.01
    sparsities: Sequence[float] = _GRID
    group: int | None = None
    score: Score = Magnitude()
    budget: Budget = Global()
    card = Card(
        name="essential-sparsity",
        title="The Emergence of Essential Sparsity in Large Pre-trained Models: "
        "The Weights that Matter",
        authors="Jaiswal et al.",
        year=2023,
        arxiv="2306.03805",
        summary="Sweep one-shot magnitude pruning and find the knee of a metric.",
    )

    def __post_init__(self) -> None:
        grid = list(self.sparsities)
        if not self.tolerance > 0:
            raise OptionError(f"tolerance {self.tolerance} is out of range; it must be above 0")
        if len(grid) < 2 or grid[0] != 0 or grid != sorted(set(grid)) or grid[-1] >= 1:
            raise OptionError(f"sparsities must ascend from 0 to below 1, got {grid}")
        if self.group is not None and self.group < 2:
            raise OptionError(f"group {self.group} is out of range; it must be at least 2")

    def sweep(
        self,
        model: nn.Module,
        metric: Callable[[nn.Module], float],
        data: Any = None,
        *,
        lower_is_better: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> SparsitySweep:
        """Prune the model to every sparsity of the grid and measure it.

        Parameters
        ----------
        model : nn.Module
            Its weights are the same afterwards.
        metric : callable
            ``metric(model)`` returns a number that is not zero for the dense model.
        data : optional
            Calibration data for scores that look at data, see
            :func:`thresher.prune.memory.prune`.
        lower_is_better : bool, default False
            True for a loss or a perplexity.
        include, exclude : sequence of str
            Shell patterns of layer names, see :func:`~thresher.parts.coverage.find_layers`.

        Returns
        -------
        SparsitySweep
        """
        layers = find_layers(model, include=include, exclude=exclude)
        dense = [layer.weight.detach().clone() for layer in layers]
        reference = float(metric(model))
        if reference == 0:
            raise OptionError("the metric of the dense model is 0; relative losses need another")
        sign = 1 if lower_is_better else -1
        losses = [0.0]
        sparsities = [0.0]
        try:
            for recipe in self._recipes():
                prune(model, recipe, data, include=include, exclude=exclude, progress=False)
                losses.append(sign * (float(metric(model)) - reference) / abs(reference))
                sparsities.append(1 - recipe.target)
                _restore(layers, dense)
        finally:
            _restore(layers, dense)
        return SparsitySweep(tuple(sparsities), tuple(losses), self.tolerance)

    def _recipes(self) -> Iterable[Recipe]:
        if self.group is not None:
            for kept in range(self.group - 1, 0, -1):
                yield Recipe(self.score, NM(kept, self.group))
            return
        for sparsity in self.sparsities[1:]:
            yield Recipe(self.score, Unstructured(), self.budget, density=1 - sparsity)


@torch.no_grad()
def _restore(layers: Sequence[Layer], dense: Sequence[torch.Tensor]) -> None:
    for layer, weight in zip(layers, dense, strict=True):
        layer.weight.copy_(weight)
