"""Choosing the k largest: the one selection that every area shares."""

from __future__ import annotations

__all__ = ["top_k_mask"]

from typing import Any

from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array

from .errors import OptionError

#: From this length on two histograms are quicker than torch's own selection.
_MANY = 4096


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
        if values.ndim == 1 and length >= _MANY and str(values.dtype) == "torch.float32":
            return _by_digits(values, k)
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


def _by_digits(values: Any, k: int) -> Any:
    """Mask the `k` largest of a float32 torch vector, by the upper and the lower half of its bits.

    Of ties at the end the first ones are taken.
    """
    import torch

    bits = values.detach().contiguous().view(torch.int32)
    # Of negative numbers, greater bits mean less.
    keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    upper, above = _digit_of((keys >> 16) + (1 << 15), k)
    upper -= 1 << 15
    lower, _ = _digit_of(keys[keys >> 16 == upper] & 0xFFFF, k - above)
    least = (upper << 16) | lower
    mask = keys > least
    ties = torch.nonzero(keys == least).flatten()
    mask[ties[: k - int(mask.sum())]] = True
    return mask


def _digit_of(digits: Any, k: int) -> tuple[int, int]:
    """Return the digit of the k-th largest, and how many digits are above it."""
    above = digits.bincount().flip(0).cumsum(0)
    place = int((above < k).sum())
    return len(above) - 1 - place, int(above[place - 1]) if place else 0
