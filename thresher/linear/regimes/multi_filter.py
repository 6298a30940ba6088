"""The multi-filter: weights are split in two or trimmed where numbers vary more than they may."""

from __future__ import annotations

__all__ = ["multi_filter"]

import numpy as np

_LEAST_WEIGHT = 1e-3  # below it a number is out
_MOST_CUTS = 400  # candidates for the ends of a split; beyond, every so manyth number is one
# What the score of a split, R^2 times the lesser share removed, is of the variance if the
# numbers are spread evenly: what is closer to two clusters scores higher.
_EVEN_SPREAD = 0.15


def multi_filter(
    places: np.ndarray, weights: np.ndarray, allowed: float, tail: float
) -> list[np.ndarray] | None:
    """Return one or two sets of lower weights if the weighted variance exceeds what is allowed.

    If the numbers between two quantiles already vary too much, they are split at
    ``v - R`` and ``v + R`` into those above the first and those below the second, with the
    squares of the two total weights adding up to no more than the square of the whole: so the
    sets that remain after many splits are few. Else, or if no split tells two clusters, those
    outside the quantiles lose weight in proportion to the square of their distance.

    Parameters
    ----------
    places : array of shape (n,)
        Numbers.
    weights : array of shape (n,)
        Their weights in [0, 1], not all zero.
    allowed : float
        The variance that numbers of one kind have at most.
    tail : float
        Share of the weight beyond either quantile, less than a half.

    Returns
    -------
    list of arrays of shape (n,), or None
        The weights of both parts of a split, or trimmed ones; None if the variance is allowed.

    References
    ----------
    Diakonikolas, Kane and Kongsgaard, List-decodable mean estimation via iterative
    multi-filtering (2020), whose constants are replaced; among the splits that qualify the one
    of the largest ``R^2 (1 - sum of the squared shares)`` is taken.
    """
    if _variance(places, weights) <= allowed:
        return None
    used = np.flatnonzero(weights)
    order = used[np.argsort(places[used], kind="stable")]
    points, shares = places[order], weights[order] / weights.sum()
    low, high = _quantiles(points, shares, tail)
    bulk = np.where((places >= low) & (places <= high), weights, 0.0)
    cuts = _best_split(points, shares, allowed) if _variance(places, bulk) > allowed else None
    if cuts is None:
        return [_trimmed(places, weights, low, high)]
    return [np.where(part, weights, 0.0) for part in (places < cuts[1], places > cuts[0])]


def _variance(places: np.ndarray, weights: np.ndarray) -> float:
    centre = np.average(places, weights=weights)
    return float(np.average((places - centre) ** 2, weights=weights))


def _quantiles(points: np.ndarray, shares: np.ndarray, tail: float) -> tuple[float, float]:
    """Return the ends of the least interval with no more than `tail` beyond either of them."""
    below, above = np.cumsum(shares), np.cumsum(shares[::-1])
    low = points[np.searchsorted(below, tail, side="right")]
    high = points[::-1][np.searchsorted(above, tail, side="right")]
    return float(low), float(high)


def _best_split(
    points: np.ndarray, shares: np.ndarray, allowed: float
) -> tuple[float, float] | None:
    """Return ``v - R`` and ``v + R`` of the best split of sorted points; None if none qualifies."""
    cuts = np.unique(np.linspace(0, len(points) - 1, _MOST_CUTS).astype(int))
    points, below = points[cuts], np.cumsum(shares)[cuts]
    above = 1 - below + shares[cuts]
    squared_radius = np.maximum(points - points[:, None], 0) ** 2 / 4
    progress = 1 - (1 - below[:, None]) ** 2 - (1 - above) ** 2
    certainty = squared_radius * np.minimum(below[:, None], above)
    qualified = (certainty >= _EVEN_SPREAD * allowed) & (progress >= 0)
    gain = np.where(qualified, squared_radius * progress, -1.0)
    left, right = np.unravel_index(int(np.argmax(gain)), gain.shape)
    return (float(points[left]), float(points[right])) if qualified[left, right] else None


def _trimmed(places: np.ndarray, weights: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the weights, lower the farther outside an interval; the farthest one is out."""
    outside = np.maximum(low - places, 0) + np.maximum(places - high, 0)
    if not np.any(outside[weights > 0]):  # too few numbers for one beyond a quantile
        outside = np.abs(places - np.average(places, weights=weights))
    excess = np.where(weights > 0, outside, 0.0) ** 2
    kept = weights * (1 - excess / excess.max())
    return np.where(kept < _LEAST_WEIGHT, 0.0, kept)
