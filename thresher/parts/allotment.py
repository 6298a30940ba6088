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
