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
    "ErdosRenyi",
    "Global",
    "LayerSummary",
    "Uniform",
    "allot",
    "summarise",
]

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..core.errors import OptionError
from ..core.named import Spelled
from .patterns import Pattern
from .scores import InputNorm, Magnitude, Score

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
        return _shares_above([_quantiles(layer) for layer in layers], layers, density)


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
            for layer, quantiles in ((layer, _quantiles(layer)) for layer in layers)
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
        return _scale_to(raw, [layer.size for layer in layers], density)


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
        return _scale_to(raw, [layer.size for layer in layers], density)


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
        blocks = sorted({layer.block for layer in layers})
        members = {b: [layer for layer in layers if layer.block == b] for b in blocks}
        ratios = torch.tensor([self._outlier_ratio(members[b]) for b in blocks]).double()
        sizes = torch.tensor([sum(layer.size for layer in members[b]) for b in blocks]).double()
        span = float(ratios.max() - ratios.min())
        if span == 0:
            return [density] * len(layers)
        shifts = (ratios - (ratios * sizes).sum() / sizes.sum()) / span
        # Clipping instead would change the mean.
        room = min(-density / float(shifts.min()), (1 - density) / float(shifts.max()))
        shares = density + min(2 * self.spread, room) * shifts
        raw = dict(zip(blocks, shares.clamp(0, 1).tolist(), strict=True))
        return [raw[layer.block] for layer in layers]

    def _outlier_ratio(self, layers: Sequence[LayerSummary]) -> float:
        size = sum(layer.size for layer in layers)
        mean = sum(layer.mean * layer.size for layer in layers) / size
        above = [(_quantiles(layer) > self.multiple * mean).float().mean() for layer in layers]
        return (
            sum(float(share) * layer.size for share, layer in zip(above, layers, strict=True))
            / size
        )


def allot(
    pattern: Pattern,
    shapes: Sequence[Sequence[int]],
    densities: Sequence[float],
    density: float,
) -> list[int]:
    """Turn densities into counts that a pattern allows and that sum to the asked total.

    Parameters
    ----------
    pattern : Pattern
        Its quantum limits how finely a layer can be cut.
    shapes : sequence of shapes
        Matrix shape of every layer.
    densities : sequence of float
        Asked of every layer, in [0, 1].
    density : float
        Asked of the model.

    Returns
    -------
    list of int
        Weights kept per layer. The total is the multiple nearest to
        ``density * weights`` that largest-remainder rounding can reach.
    """
    quanta = [pattern.quantum(shape) for shape in shapes]
    sizes = [math.prod(shape) for shape in shapes]
    exact = [share * size for share, size in zip(densities, sizes, strict=True)]
    counts = [q * math.floor(e / q + 1e-9) for e, q in zip(exact, quanta, strict=True)]
    missing = round(density * sum(sizes)) - sum(counts)
    # Sorting is stable, so equal remainders are settled by the order of the layers.
    order = sorted(range(len(counts)), key=lambda i: (counts[i] - exact[i]) / quanta[i])
    moved = True
    while moved:
        moved = False
        # One pass settles the rounding; a budget that is itself off is followed by more.
        steps = max(1, abs(missing) // max(1, sum(quanta)))
        for i in order if missing > 0 else reversed(order):
            change = _step(missing, steps * quanta[i], counts[i], sizes[i])
            change = change or _step(missing, quanta[i], counts[i], sizes[i])
            counts[i] += change
            missing -= change
            moved = moved or change != 0
    return counts


def _step(missing: int, step: int, count: int, size: int) -> int:
    """Return plus or minus `step` if that brings `missing` nearer to 0 within the layer."""
    if 0 < step <= 2 * missing and count + step <= size:
        return step
    if 0 < step < -2 * missing and count >= step:
        return -step
    return 0


def _quantiles(layer: LayerSummary) -> torch.Tensor:
    if layer.quantiles is None:
        raise OptionError(f"this budget needs the scores of layer {layer.name!r}; summarise them")
    return layer.quantiles


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


def _scale_to(raw: Sequence[float], sizes: Sequence[int], density: float) -> list[float]:
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
