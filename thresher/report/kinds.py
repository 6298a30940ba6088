"""Layers gathered by the kind of projection they are."""

from __future__ import annotations

__all__ = ["HISTOGRAM_LIMIT", "Kind", "by_kind"]

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..prune.record import LayerRecord

#: Standard deviations of the dense weights that a layer's histogram covers on either side.
HISTOGRAM_LIMIT = 4.0


@dataclass(frozen=True)
class Kind:
    """The layers of one kind.

    Parameters
    ----------
    name : str
        Last part of their names, such as ``"q_proj"``.
    layers : tuple of LayerRecord
        At least one, in the model's order.
    """

    name: str
    layers: tuple[LayerRecord, ...]

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(layer.size for layer in self.layers)

    @property
    def kept(self) -> int:
        """Number of weights that survive."""
        return sum(layer.kept for layer in self.layers)

    @property
    def density(self) -> float:
        """Share of weights that survive."""
        return self.kept / self.size if self.size else 1.0

    @property
    def error(self) -> float:
        """Mean of the layers' reconstruction errors."""
        return sum(layer.error for layer in self.layers) / len(self.layers)

    def histogram(self) -> dict[str, list[float]]:
        """Return the counts of all layers together.

        Returns
        -------
        dict of str to list of float
            ``centers`` in standard deviations of each layer's dense weights, so that layers of
            different scale add up bin by bin; ``dense`` and ``pruned`` counts. Empty when the
            layers hold no histogram of one common number of bins.
        """
        held = [layer.histogram for layer in self.layers if layer.histogram]
        if not held or len({len(h["dense"]) for h in held}) != 1:
            return {}
        bins = len(held[0]["dense"])
        step = 2 * HISTOGRAM_LIMIT / bins
        return {
            "centers": [(i + 0.5) * step - HISTOGRAM_LIMIT for i in range(bins)],
            "dense": [sum(column) for column in zip(*(h["dense"] for h in held), strict=True)],
            "pruned": [sum(column) for column in zip(*(h["pruned"] for h in held), strict=True)],
        }


def by_kind(layers: Sequence[LayerRecord], limit: int | None = None) -> list[Kind]:
    """Gather layers by kind.

    Parameters
    ----------
    layers : sequence of LayerRecord
        In the model's order.
    limit : int, optional
        At most this many groups: the kinds with the fewest weights are then put together as
        ``"N other kinds"``.

    Returns
    -------
    list of Kind
        In the order in which they appear in the model, the rest last.
    """
    groups: dict[str, list[LayerRecord]] = defaultdict(list)
    for layer in layers:
        groups[layer.kind].append(layer)
    kinds = [Kind(name, tuple(members)) for name, members in groups.items()]
    if limit is None or len(kinds) <= limit:
        return kinds
    largest = set(sorted(groups, key=lambda name: -sum(r.size for r in groups[name]))[: limit - 1])
    rest = [layer for kind in kinds if kind.name not in largest for layer in kind.layers]
    shown = [kind for kind in kinds if kind.name in largest]
    return [*shown, Kind(f"{len(kinds) - len(shown)} other kinds", tuple(rest))]
