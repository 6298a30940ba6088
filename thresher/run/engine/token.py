"""A token, and how likely a model found it."""

from __future__ import annotations

__all__ = ["Token", "likeliest"]

import numpy as np
from numpy.typing import NDArray


class Token(int):
    """A chosen token: its number in the vocabulary, and where asked for how likely it was.

    Attributes
    ----------
    logprob : float or None
        The natural logarithm of its probability by the model itself: of the softmax of the logits
        before repetition penalty, temperature and whatever else narrows the choice.
    top : tuple of (int, float)
        The likeliest tokens with theirs, the likeliest first.
    """

    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def likeliest(
    logits: NDArray[np.float32], token: int, count: int
) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Return a token's log-probability, and the likeliest `count` tokens with theirs.

    Parameters
    ----------
    logits : array of shape (vocabulary,), float32
    token : int
    count : int
        At most as many as there are tokens.
    """
    most = float(logits.max())
    total = most + float(np.log(np.exp(logits.astype(np.float64) - most).sum()))
    order = largest(logits, count) if count else np.empty(0, np.int64)
    top = tuple((int(each), float(logits[each]) - total) for each in order)
    return float(logits[token]) - total, top


def largest(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the `count` tokens with the largest logits, the largest first, ties in their order.

    Parameters
    ----------
    logits : array of shape (vocabulary,), float32
    count : int
        At least 1; all of them where there are fewer.
    """
    if count >= len(logits):
        return np.argsort(-logits, kind="stable")
    least = np.partition(logits, len(logits) - count)[len(logits) - count]
    above = np.flatnonzero(logits > least)
    tied = np.flatnonzero(logits == least)[: count - len(above)]
    chosen = np.concatenate([above, tied])
    chosen.sort()
    return chosen[np.argsort(-logits[chosen], kind="stable")]
