"""Projections onto balls, and proximal operators of norms that couple all entries.

All speak the array API standard. They act on one vector.
"""

from __future__ import annotations

__all__ = ["k_support", "l1_ball", "l_inf", "simplex", "slope"]

from typing import Any

from array_api_compat import array_namespace, device

from .errors import OptionError


def simplex(x: Any, radius: float = 1.0) -> Any:
    """Project a vector onto ``{z >= 0, sum(z) = radius}``.

    Parameters
    ----------
    x : array of shape (p,)
        The vector.
    radius : float, default 1
        Positive.

    Returns
    -------
    array of shape (p,)
        The nearest point: ``max(x - threshold, 0)`` for the threshold at which it sums to
        `radius`.

    References
    ----------
    Held, Wolfe and Crowder, Validation of subgradient optimization (1974).
    """
    xp = array_namespace(x)
    if not radius > 0:
        raise OptionError(f"radius must be positive, got {radius}")
    falling = xp.flip(xp.sort(x))
    rank = xp.arange(1, x.shape[0] + 1, dtype=x.dtype, device=device(x))
    thresholds = (xp.cumulative_sum(falling) - radius) / rank
    last = int(xp.sum(xp.astype(falling > thresholds, xp.int64))) - 1
    return xp.clip(x - thresholds[max(last, 0)], min=0.0)


def l1_ball(x: Any, radius: float) -> Any:
    """Project a vector onto ``{sum(|z|) <= radius}``.

    Parameters
    ----------
    x : array of shape (p,)
        The vector.
    radius : float
        Not negative.

    Returns
    -------
    array of shape (p,)
        The nearest point, a soft thresholding of `x`.

    References
    ----------
    Duchi, Shalev-Shwartz, Singer and Chandra, Efficient projections onto the l1-ball for
    learning in high dimensions (2008).
    """
    xp = array_namespace(x)
    if radius < 0:
        raise OptionError(f"radius must not be negative, got {radius}")
    if radius == 0:
        return xp.zeros_like(x)
    size = xp.abs(x)
    if float(xp.sum(size)) <= radius:
        return x
    return xp.sign(x) * simplex(size, radius)


def l_inf(x: Any, threshold: float) -> Any:
    """Prox of ``threshold * max|z|``: what projection onto the L1 ball leaves over.

    Parameters
    ----------
    x : array of shape (p,)
        The vector.
    threshold : float
        Not negative.

    Returns
    -------
    array of shape (p,)
        The largest entries are clipped to a common magnitude.

    References
    ----------
    Parikh and Boyd, Proximal Algorithms (2014), section 6.5.2 (Moreau decomposition).
    """
    return x - l1_ball(x, threshold)


def slope(x: Any, thresholds: Any) -> Any:
    """Prox of the sorted L1 norm ``sum_i thresholds_i |z|_(i)``, largest magnitudes first.

    Parameters
    ----------
    x : array of shape (p,)
        The vector.
    thresholds : array of shape (p,)
        Non-negative and not increasing.

    Returns
    -------
    array of shape (p,)
        Magnitudes keep their order; ties form where the thresholds fall faster than ``|x|``.

    References
    ----------
    Bogdan, van den Berg, Sabatti, Su and Candès, SLOPE: adaptive variable selection via
    convex optimization (2015), algorithm 3 (pool adjacent violators).
    """
    xp = array_namespace(x)
    order = xp.flip(xp.argsort(xp.abs(x)))
    excess = xp.take(xp.abs(x), order) - thresholds
    sums: list[float] = []
    sizes: list[int] = []
    for value in excess.tolist():
        total, size = value, 1
        while sums and total / size >= sums[-1] / sizes[-1]:
            total += sums.pop()
            size += sizes.pop()
        sums.append(total)
        sizes.append(size)
    pooled: list[float] = []
    for total, size in zip(sums, sizes, strict=True):
        pooled.extend([max(total / size, 0.0)] * size)
    sorted_result = xp.asarray(pooled, dtype=x.dtype, device=device(x))
    return xp.sign(x) * xp.take(sorted_result, xp.argsort(order))


def k_support(x: Any, threshold: float, k: int) -> Any:
    """Prox of ``threshold / 2`` times the squared k-support norm.

    The unit ball of that norm is the convex hull of the k-sparse vectors of Euclidean norm
    at most one, the tightest convex stand-in for "k-sparse and small".

    Parameters
    ----------
    x : array of shape (p,)
        The vector.
    threshold : float
        Not negative.
    k : int
        From 1 to p.

    Returns
    -------
    array of shape (p,)
        ``x * theta / (theta + threshold)`` with ``theta`` in [0, 1] summing to `k`.

    References
    ----------
    Argyriou, Foygel and Srebro, Sparse prediction with the k-support norm (2012). Written
    through its variational form ``min sum(z^2 / theta)``, as in McDonald, Pontil and
    Stamos, New perspectives on k-support and cluster norms (2016).
    """
    if not 1 <= k <= x.shape[0]:
        raise OptionError(f"k must lie between 1 and {x.shape[0]}, got {k}")
    if threshold < 0:
        raise OptionError(f"threshold must not be negative, got {threshold}")
    if threshold == 0:
        return x
    theta = k_support_shares(x, threshold, k)
    return x * theta / (theta + threshold)


def k_support_shares(x: Any, offset: float, k: int) -> Any:
    """Return ``clip(c |x| - offset, 0, 1)`` with `c` such that the entries sum to `k`.

    Parameters
    ----------
    x : array of shape (p,)
        The vector.
    offset : float
        Not negative.
    k : int
        From 1 to p.

    Returns
    -------
    array of shape (p,)
        The shares; they sum to the number of non-zeros of `x` where that is below `k`.
    """
    xp = array_namespace(x)
    size = xp.abs(x)
    largest = float(xp.max(size))
    if largest == 0:
        return xp.zeros_like(x)
    size = size / largest
    nonzero = size > 0
    if int(xp.sum(xp.astype(nonzero, xp.int64))) <= k:
        return xp.astype(nonzero, x.dtype)
    low, high = offset, (1 + offset) / float(xp.min(size[nonzero]))
    for _ in range(200):  # the sum grows with c; in doubles 200 halvings exhaust the bits
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if float(xp.sum(xp.clip(middle * size - offset, min=0.0, max=1.0))) < k:
            low = middle
        else:
            high = middle
    return xp.clip(high * size - offset, min=0.0, max=1.0)
