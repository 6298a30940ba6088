"""Which samples tell most about a model: those that are least alike, in content and in size."""

from __future__ import annotations

__all__ = ["extremes", "most_different"]

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_flatten

from .walk import tensors


def most_different(samples: Sequence[Any]) -> int | None:
    """Return which sample differs from the first in most of its parts; None where there is one.

    Of several the last: what a model keeps of one sample and shows to another is seen only where
    the two differ, in tokens, conditions or names of adapters.
    """
    best, most = None, -1
    leaves, form = tree_flatten(samples[0])
    for index in range(len(samples) - 1, 0, -1):
        others, other_form = tree_flatten(samples[index])
        if form != other_form:
            return index
        count = sum(_differ(a, b) for a, b in zip(leaves, others, strict=True))
        if count > most:
            best, most = index, count
        if count == len(leaves):
            break
    return best


def _differ(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape != b.shape or not torch.equal(a, b)
    try:
        return a is not b and bool(a != b)
    except (TypeError, ValueError, RuntimeError):
        return True


def extremes(samples: Sequence[Any], seen: Sequence[int]) -> list[int]:
    """Return the smallest and the largest sample, unless some in `seen` are of the same size.

    A model that is called in a loop over its input is called most often for the longest.
    """
    sizes = [sum(t.numel() for t in tensors(sample)) for sample in samples]
    known = {sizes[index] for index in seen}
    found = {size: sizes.index(size) for size in (min(sizes), max(sizes)) if size not in known}
    return list(found.values())
