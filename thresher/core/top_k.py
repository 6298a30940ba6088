"""Choosing the k largest: the one selection that every area shares."""

from __future__ import annotations

__all__ = ["top_k_mask"]

from typing import Any

from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array

from .errors import OptionError


def top_k_mask(values: Any, k: int, axis: int | None = -1) -> Any:
    """Mark the `k` largest values along an axis.

    Parameters
    ----------
    values : array
        Any array of the array API standard (NumPy, torch on any device, ...), without NaN.
    k : int
        How many to keep in each slice, from 0 to the length of the axis.
    axis : int or None, default -1
        The axis to choose along; None chooses among all entries.

    Returns
    -------
    array of bool
        Same shape and device as `values`, with exactly `k` true entries per slice, ties
        included.

    Raises
    ------
    OptionError
        If `k` is negative or exceeds the number of entries to choose among.
    """
    xp = array_namespace(values)
    if axis is None:
        flat = xp.reshape(values, (-1,))
        return xp.reshape(top_k_mask(flat, k, -1), values.shape)
    length = values.shape[axis]
    if not 0 <= k <= length:
        raise OptionError(f"cannot keep {k} of {length} entries; keep between 0 and {length}")
    if k in (0, length):
        return xp.full(
            values.shape, k == length and length > 0, dtype=xp.bool, device=device(values)
        )
    if is_torch_array(values):
        chosen = values.topk(k, dim=axis, sorted=False).indices
        return xp.zeros_like(values, dtype=xp.bool).scatter_(axis, chosen, True)
    if is_numpy_array(values):
        order = xp.argpartition(values, length - k, axis=axis)
    else:
        order = xp.argsort(values, axis=axis)
    chosen = xp.take(order, xp.arange(length - k, length), axis=axis)
    if is_numpy_array(values):
        mask = xp.zeros(values.shape, dtype=bool)
        xp.put_along_axis(mask, chosen, True, axis=axis)
        return mask
    rank = xp.argsort(order, axis=axis)
    return rank >= length - k
