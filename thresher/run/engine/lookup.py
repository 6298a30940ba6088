"""Guesses of what follows, from the text itself."""

from __future__ import annotations

__all__ = ["guess"]

import numpy as np
from numpy.typing import NDArray

#: Tokens at the end of a text that must have been there before, the longest tried first.
_LENGTHS = (4, 3, 2)


def guess(text: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return what came after the last place where the text's end was before, at most `most` tokens.

    Parameters
    ----------
    text : array of shape (tokens,)
    most : int

    Returns
    -------
    array of shape (guessed,)
        Empty where the end was not there before.

    References
    ----------
    Saxena, Prompt Lookup Decoding (2023), https://github.com/apoorvumang/prompt-lookup-decoding.
    """
    for length in _LENGTHS:
        if most < 1 or len(text) <= length:
            continue
        places = np.lib.stride_tricks.sliding_window_view(text[:-1], length)
        found = np.flatnonzero((places == text[-length:]).all(axis=1))
        if found.size:
            start = int(found[-1]) + length
            return text[start : start + most]
    return text[:0]
