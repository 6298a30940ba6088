"""Proximal operators: the choice of what to keep, as a penalty.

Every function speaks the array API standard: NumPy arrays and torch tensors on any device
go in, the same kind comes out. Each solves ``argmin_z 0.5 * ||z - x||^2 + penalty(z)``.
"""

from __future__ import annotations

__all__ = ["hard", "soft", "top_k"]

from typing import Any

from array_api_compat import array_namespace

from .errors import OptionError
from .top_k import top_k_mask


def soft(x: Any, threshold: Any) -> Any:
    """Shrink every entry towards zero by `threshold`: the prox of ``threshold * |z|_1``.

    Parameters
    ----------
    x : array
        Any shape.
    threshold : float or array
        Non-negative, broadcast against `x` (an array gives the weighted L1 norm).

    Returns
    -------
    array
        ``sign(x) * max(|x| - threshold, 0)``.

    References
    ----------
    Parikh and Boyd, Proximal Algorithms (2014), section 6.5.2.
    """
    xp = array_namespace(x)
    _require_non_negative(threshold)
    return xp.sign(x) * xp.clip(xp.abs(x) - threshold, min=0.0)


def hard(x: Any, threshold: Any) -> Any:
    """Zero every entry of magnitude at most `threshold`.

    This is the prox of ``threshold**2 / 2 * ||z||_0``.

    Parameters
    ----------
    x : array
        Any shape.
    threshold : float or array
        Non-negative, broadcast against `x`.

    Returns
    -------
    array
        `x` where ``|x| > threshold``, zero elsewhere.

    References
    ----------
    Blumensath and Davies, Iterative Thresholding for Sparse Approximations (2008).
    """
    xp = array_namespace(x)
    _require_non_negative(threshold)
    return xp.where(xp.abs(x) > threshold, x, xp.zeros_like(x))


def top_k(x: Any, k: int, axis: int | None = -1) -> Any:
    """Keep the `k` entries of largest magnitude: the projection onto k-sparse vectors.

    Parameters
    ----------
    x : array
        Any shape.
    k : int
        How many to keep in each slice along `axis`.
    axis : int or None, default -1
        None chooses among all entries.

    Returns
    -------
    array
        `x` with all but `k` entries per slice set to zero.

    Raises
    ------
    OptionError
        If `k` is out of range.
    """
    xp = array_namespace(x)
    return xp.where(top_k_mask(xp.abs(x), k, axis), x, xp.zeros_like(x))


def _require_non_negative(threshold: Any) -> None:
    smallest = threshold if isinstance(threshold, int | float) else threshold.min()
    if smallest < 0:
        raise OptionError(f"threshold must not be negative, got {float(smallest)}")
