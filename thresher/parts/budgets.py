"""Budgets: how much does each layer keep? From all scores and one global density.

A budget sees a short :class:`LayerSummary` of every layer, never all the weights at once,
so that models larger than memory can be surveyed block by block.
"""

from __future__ import annotations

__all__ = [
    "ERK",
    "LAMP",
    "OWL",
    "Budget",
    "CoarseToFine",
    "ErdosRenyi",
    "Global",
    "LayerSummary",
    "Uniform",
    "scale_to",
    "spread_over_blocks",
    "summarise",
]

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..core.errors import OptionError
from ..core.named import Spelled
from .scores import InputNorm, Magnitude, Score, UnitGradient

#: Scores kept of a layer; layers up to this size are represented exactly.
SUMMARY_SIZE = 65_536


@dataclass(frozen=True)
class LayerSummary:
    """What a budget knows of a layer.

    Parameters
    ----------
    name : str
        The layer's name.
    shape : tuple of int
        Shape of the weight as the module stores it, kernel sizes included.
    block : int
        Index of the block that the layer belongs to.
    mean : float, optional
        Mean score.
    quantiles : Tensor, optional
        The scores in ascending order, thinned evenly to at most ``SUMMARY_SIZE``.
    """

    name: str
    shape: tuple[int, ...]
    block: int = 0
    mean: float = math.nan
    quantiles: torch.Tensor | None = None

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def scores(self) -> torch.Tensor:
        """The quantiles, for budgets that need them.

        Raises
        ------
        OptionError
            If the layer was summarised without its scores.
        """
        if self.quantiles is None:
            raise OptionError(
                f"this budget needs the scores of layer {self.name!r}; summarise them"
            )
        return self.quantiles


def summarise(
    name: str, shape: Sequence[int], block: int, score: torch.Tensor | None = None
) -> LayerSummary:
    """Summarise a layer, with its scores when a budget needs them.

    Parameters
    ----------
    name : str
        The layer's name.
    shape : sequence of int
        Shape of its weight.
    block : int
        Index of its block.
    score : Tensor, optional
        Score of every weight.

    Returns
    -------
    LayerSummary
    """
    if score is None:
        return LayerSummary(name, tuple(shape), block)
    ordered = score.flatten().float().sort().values
    if ordered.numel() > SUMMARY_SIZE:
        # The middle of each of SUMMARY_SIZE equal parts.
        places = (torch.arange(SUMMARY_SIZE, dtype=torch.float64) + 0.5) / SUMMARY_SIZE
        ordered = ordered[(places * ordered.numel()).long()].clone()
    return LayerSummary(name, tuple(shape), block, float(score.mean()), ordered)


class Budget(Spelled, ABC):
    """Base class of budgets.

    Attributes
    ----------
    surveys : bool
        Whether :meth:`__call__` needs the scores, hence a pass over the dense model first.
    score : Score or None
        The score to survey; None takes the recipe's.
    """

    kind = "budget"
    surveys: bool = False
    score: Score | None = None

    @abstractmethod
    def __call__(self, layers: Sequence[LayerSummary], density: float) -> list[float]:
        """Return the density of every layer.

        Parameters
        ----------
        layers : sequence of LayerSummary
            All prunable layers.
        density : float
            Share of all their weights to keep, in (0, 1].

        Returns
        -------
        list of float
            In [0, 1], averaging to `density` when weighted by layer size.
        """


@dataclass(frozen=True)
class Uniform(Budget):
    """The same density everywhere."""

    name = "uniform"

    def __call__(self, layers: Sequence[LayerSummary], density: float) -> list[float]:
        """Return `density` for every layer."""
        return [density] * len(layers)


@dataclass(frozen=True)
class Global(Budget):
    """Whatever one threshold on the score leaves to each layer.

    Layers can vanish entirely: that is the known weakness of global magnitude pruning.
    """

    name = "global"
    surveys = True

    def __call__(self, layers: Sequence[LayerSummary], density: float) -> list[float]:
        """Return each layer's share of the globally largest scores."""
        return _shares_above([layer.scores for layer in layers], layers, density)


@dataclass(frozen=True)
class LAMP(Budget):
    """One threshold on the score squared, relative to the larger ones of its own layer.

    References
    ----------
    Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning (2021), eq. 2.
    """

    name = "lamp"
    surveys = True

    def __call__(self, layers: Sequence[LayerSummary], density: float) -> list[float]:
        """Return each layer's share of the globally largest LAMP scores, never zero."""
        lamp = [
            lamp_score(quantiles, layer.size / quantiles.numel())
            for layer, quantiles in ((layer, layer.scores) for layer in layers)
        ]
        shares = _shares_above(lamp, layers, density)
        # The largest weight of a layer has LAMP score 1, the maximum: it always survives.
        return [max(share, 1 / layer.size) for share, layer in zip(shares, layers, strict=True)]


def lamp_score(ascending: torch.Tensor, stands_for: float = 1.0) -> torch.Tensor:
    """Return ``s_u^2 / sum_{v >= u} s_v^2`` for scores `s` in ascending order.

    Parameters
    ----------
    ascending : Tensor of shape (n,)
        Scores such as magnitudes, smallest first.
    stands_for : float, default 1
        Scores of which each is the middle one, where a layer's were thinned.

    Returns
    -------
    Tensor of shape (n,)
        In [0, 1]; of scores that were not thinned, the last is 1 unless every score is zero.
    """
    squares = ascending.double().square()
    larger = squares.flip(0).cumsum(0).flip(0) - squares
    # Of the scores that an entry stands for, half are smaller than itself.
    tails = stands_for * larger + (stands_for + 1) / 2 * squares
    return torch.where(tails > 0, squares / tails, torch.zeros_like(tails))


@dataclass(frozen=True)
class ErdosRenyi(Budget):
    """Density proportional to ``(inputs + outputs) / (inputs * outputs)``.

    References
    ----------
    Mocanu et al., Scalable training of artificial neural networks with adaptive sparse
    connectivity (2018), eq. 1.
    """

    name = "erdos-renyi"

    def __call__(self, layers: Sequence[LayerSummary], density: float) -> list[float]:
        """Return the densities, capped at 1 with the excess shared by the others."""
        raw = [sum(layer.shape[:2]) / math.prod(layer.shape[:2]) for layer in layers]
        return scale_to(raw, [layer.size for layer in layers], density)


@dataclass(frozen=True)
class ERK(Budget):
    """Erdős–Rényi that counts kernel sizes: ``sum(shape) / prod(shape)``.

    References
    ----------
    Evci et al., Rigging the Lottery (2020), section 3.
    """

    name = "erk"

    def __call__(self, layers: Sequence[LayerSummary], density: float) -> list[float]:
        """Return the densities, capped at 1 with the excess shared by the others."""
        raw = [sum(layer.shape) / layer.size for layer in layers]
        return scale_to(raw, [layer.size for layer in layers], density)


@dataclass(frozen=True)
class OWL(Budget):
    """More to the blocks with more outliers.

    Parameters
    ----------
    multiple : float, default 5.0
        A score above this many block means is an outlier (the paper's M; 5 or 7 there).
    spread : float, default 0.08
        Half the range of the densities (the paper's lambda); they are then shifted so that
        their mean is the asked one, and drawn closer together where one would leave [0, 1].

    References
    ----------
    Yin et al., Outlier Weighed Layerwise Sparsity (2023), section 3.
    """

    multiple: float = 5.0
    spread: float = 0.08
    name = "owl"
    surveys = True
    score = Magnitude() * InputNorm()

    def __call__(self, layers: Sequence[LayerSummary], density: float) -> list[float]:
        """Return one density per block, rising with its outlier ratio."""
        blocks = {layer.block for layer in layers}
        ratios = {
            block: self._outlier_ratio([layer for layer in layers if layer.block == block])
            for block in blocks
        }
        return spread_over_blocks(layers, ratios, density, self.spread)

    def _outlier_ratio(self, layers: Sequence[LayerSummary]) -> float:
        size = sum(layer.size for layer in layers)
        mean = sum(layer.mean * layer.size for layer in layers) / size
        above = [(layer.scores > self.multiple * mean).float().mean() for layer in layers]
        return (
            sum(float(share) * layer.size for share, layer in zip(above, layers, strict=True))
            / size
        )


@dataclass(frozen=True)
class CoarseToFine(Budget):
    """A floor for every block, and the rest in proportion to the loss's gradient by the block.

    Parameters
    ----------
    room : float, default 0.1
        How much less than asked a block may keep at least; all blocks' room is what is shared out.

    Notes
    -----
    That what is above the floor goes in proportion to the norm is how the paper's cap on the
    sparsity of a block is read here.

    References
    ----------
    Sung et al., ECoFLaP: Efficient Coarse-to-Fine Layer-Wise Pruning for Vision-Language Models
    (2024), section 3, for the zeroth-order importance and the floor; 0.1 is the authors' choice
    for LLaMA at 60 %.
    """

    room: float = 0.1
    name = "coarse-to-fine"
    surveys = True
    score = UnitGradient()

    def __call__(self, layers: Sequence[LayerSummary], density: float) -> list[float]:
        """Return one density per block, from `density` less the room to 1."""
        sizes: dict[int, int] = {}
        norms: dict[int, float] = {}
        for layer in layers:
            sizes[layer.block] = sizes.get(layer.block, 0) + layer.size
            norms[layer.block] = float(layer.scores[-1])
        most, floor = max(norms.values()), max(0.0, density - self.room)
        if most == 0 or floor == 1:
            return [density] * len(layers)
        # Blocks without a gradient take what is left where all others are whole.
        raw = [max(norms[block] / most, 1e-9) / size for block, size in sizes.items()]
        above = scale_to(raw, list(sizes.values()), (density - floor) / (1 - floor))
        shares = {
            block: floor + (1 - floor) * share for block, share in zip(sizes, above, strict=True)
        }
        return [min(1.0, shares[layer.block]) for layer in layers]


def _shares_above(
    scores: Sequence[torch.Tensor], layers: Sequence[LayerSummary], density: float
) -> list[float]:
    """Share of each layer's scores among the globally largest, layers weighted by size."""
    values = torch.cat([s.double() for s in scores])
    weights = torch.cat(
        [
            torch.full((s.numel(),), layer.size / s.numel(), dtype=torch.float64)
            for s, layer in zip(scores, layers, strict=True)
        ]
    )
    order = values.argsort(descending=True, stable=True)
    total = sum(layer.size for layer in layers)
    taken = weights[order].cumsum(0)
    kept = torch.zeros_like(values, dtype=torch.bool)
    kept[order] = taken <= density * total + 1e-6 * total / len(values)
    shares, start = [], 0
    for s in scores:
        shares.append(float(kept[start : start + s.numel()].double().mean()))
        start += s.numel()
    return shares


def spread_over_blocks(
    layers: Sequence[LayerSummary], values: Mapping[int, float], density: float, spread: float
) -> list[float]:
    """Return densities that rise with a value of each layer's block.

    Parameters
    ----------
    layers : sequence of LayerSummary
        All prunable layers.
    values : mapping of int to float
        Of every block, in any unit.
    density : float
        The mean, weighted by size.
    spread : float
        Half the range of the densities; less where one would leave [0, 1] otherwise.

    Returns
    -------
    list of float
        Of every layer; all are `density` where all values are the same.
    """
    sizes = dict.fromkeys(values, 0)
    for layer in layers:
        sizes[layer.block] += layer.size
    mean = sum(values[block] * size for block, size in sizes.items()) / sum(sizes.values())
    span = max(values.values()) - min(values.values())
    if span == 0:
        return [density] * len(layers)
    shifts = {block: (value - mean) / span for block, value in values.items()}
    # Clipping instead would change the mean.
    room = min(-density / min(shifts.values()), (1 - density) / max(shifts.values()))
    shares = {b: density + min(2 * spread, room) * shift for b, shift in shifts.items()}
    return [min(1.0, max(0.0, shares[layer.block])) for layer in layers]


def scale_to(raw: Sequence[float], sizes: Sequence[int], density: float) -> list[float]:
    """Scale `raw` to the asked mean, full layers staying at 1."""
    target = density * sum(sizes)
    full: set[int] = set()
    while len(full) < len(raw):
        free = [i for i in range(len(raw)) if i not in full]
        rest = target - sum(sizes[i] for i in full)
        scale = rest / sum(raw[i] * sizes[i] for i in free)
        over = {i for i in free if scale * raw[i] > 1}
        if not over:
            return [1.0 if i in full else scale * raw[i] for i in range(len(raw))]
        full |= over
    return [1.0] * len(raw)
