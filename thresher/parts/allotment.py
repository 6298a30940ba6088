"""From densities to counts that a pattern allows."""

from __future__ import annotations

__all__ = ["allot"]

import math
from collections.abc import Sequence

from .patterns import Pattern


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
        Weights kept per layer, each within one quantum of what is asked of it; the total comes as
        near to ``density * weights`` as largest-remainder rounding can bring it.
    """
    quanta = [pattern.quantum(shape) for shape in shapes]
    sizes = [math.prod(shape) for shape in shapes]
    total = round(density * sum(sizes))
    exact = _summing_to(
        total, [share * size for share, size in zip(densities, sizes, strict=True)], sizes
    )
    counts = [q * math.floor(e / q + 1e-9) for e, q in zip(exact, quanta, strict=True)]
    missing = total - sum(counts)
    # Sorting is stable, so equal remainders are settled by the order of the layers. Every layer
    # moves once: where large quanta leave something over, the smallest layer is not to pay for it.
    for i in sorted(range(len(counts)), key=lambda i: (counts[i] - exact[i]) / quanta[i]):
        if 0 < quanta[i] <= 2 * missing and counts[i] + quanta[i] <= sizes[i]:
            counts[i] += quanta[i]
            missing -= quanta[i]
    return counts


def _summing_to(total: int, exact: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """Return counts that sum to a total: all densities are moved alike, between 0 and 1."""
    moved = list(exact)
    while abs(off := total - sum(moved)) >= 0.5:
        free = [i for i, size in enumerate(sizes) if (moved[i] < size if off > 0 else moved[i] > 0)]
        if not free:
            break
        share = off / sum(sizes[i] for i in free)
        for i in free:
            moved[i] = min(max(moved[i] + share * sizes[i], 0.0), float(sizes[i]))
    return moved
