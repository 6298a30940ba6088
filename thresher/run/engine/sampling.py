"""Which token comes next."""

from __future__ import annotations

__all__ = ["Sampler"]

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import NumericalError, OptionError
from .token import largest

#: Tokens that are mostly likely enough together; those that are summed at a time.
_FEW, _BLOCK = 256, 256
#: Differences of logits are divided by it in float32. All but the likeliest then have a share of 0.
_COLDEST = 1e-30


@dataclass(frozen=True)
class Sampler:
    """Choose tokens from logits, one after another.

    Parameters
    ----------
    temperature : float, default 0
        What logits are divided by; 0 takes the likeliest token.
    top_k : int, optional
        Draw from so many likeliest tokens alone.
    top_p : float, optional
        Draw from the fewest likeliest tokens whose probabilities add up to at least this.
    min_p : float, optional
        Draw from tokens alone that are at least this share as likely as the likeliest.
    repetition_penalty : float, default 1
        What positive logits of tokens that were there before are divided by, and others multiplied
        by.
    seed : int, optional
        Of the draws; different ones every time without it.

    Raises
    ------
    OptionError
        If a value is outside its range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < np.inf:
            raise OptionError(f"temperature is {self.temperature}; it must be 0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise OptionError(f"top_k is {self.top_k}; it must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise OptionError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise OptionError(f"min_p is {self.min_p}; it must be from 0 to 1")
        if not 0 < self.repetition_penalty < np.inf:
            raise OptionError(
                f"repetition_penalty is {self.repetition_penalty}; it must be above 0, and 1 "
                "penalises nothing"
            )
        if self.seed is not None and self.seed < 0:
            raise OptionError(f"seed is {self.seed}; it must be 0 or more")

    def generator(self) -> np.random.Generator:
        """Return where draws of one text come from."""
        return np.random.default_rng(self.seed)

    def choose(
        self,
        logits: NDArray[np.float32],
        generator: np.random.Generator,
        before: NDArray[np.int64],
    ) -> int:
        """Return the next token.

        Parameters
        ----------
        logits : array of shape (vocabulary,), float32
        generator : numpy.random.Generator
            See :meth:`generator`.
        before : array of int64
            The tokens of the text so far.

        Raises
        ------
        NumericalError
            If a logit is not finite.
        """
        best = int(logits.argmax())  # NaN is the largest to NumPy
        if not np.isfinite(logits[best]):
            raise NumericalError("the model's logits are not finite")
        if self.repetition_penalty != 1:
            logits = self._penalised(logits, before)
            best = int(logits.argmax())
        if self.temperature == 0:
            return best
        # In float32, and summed in float64: this passes over the whole vocabulary.
        shares = np.exp((logits - logits[best]) / np.float32(max(self.temperature, _COLDEST)))
        order = self._candidates(logits, shares)
        if order is not None:
            shares = self._likely(shares[order], float(shares.sum(dtype=np.float64)))
        drawn = _drawn(shares, generator.random())
        return drawn if order is None else int(order[drawn])

    def _likely(self, shares: NDArray[Any], total: float) -> NDArray[Any]:
        """Return the shares of candidates that are likely enough, and 0 for others."""
        held = shares.astype(np.float64)
        # What is likely enough is counted among all tokens, or among the top_k.
        held /= total if self.top_k is None else held.sum()
        if self.top_p is not None:
            held[int(np.searchsorted(held.cumsum(), self.top_p)) + 1 :] = 0
        if self.min_p is not None:
            held[held < self.min_p * held.max()] = 0
        return held

    def _penalised(
        self, logits: NDArray[np.float32], before: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        known, logits = np.unique(before), logits.copy()
        held, penalty = logits[known], np.float32(self.repetition_penalty)
        logits[known] = np.where(held > 0, held / penalty, held * penalty)
        return logits

    def _candidates(
        self, logits: NDArray[np.float32], shares: NDArray[np.float32]
    ) -> NDArray[np.int64] | None:
        """Return the tokens that may be drawn, the likeliest first; None for all in their order."""
        if self.top_k is not None:
            return largest(logits, self.top_k)
        if self.top_p is None:
            return None if self.min_p is None else np.arange(len(logits))
        needed, count = self.top_p * shares.sum(dtype=np.float64), _FEW
        while True:  # to sort a whole vocabulary takes longer than all else of the choice
            order = largest(logits, count)
            if count >= len(logits) or shares[order].sum(dtype=np.float64) >= needed:
                return order
            count *= 8


def _drawn(shares: NDArray[Any], uniform: float) -> int:
    """Return a place, as likely as its share; `uniform` is drawn from [0, 1)."""
    # Sums of blocks first, since running sums of all would be most of the time.
    sums = np.add.reduceat(shares, np.arange(0, len(shares), _BLOCK), dtype=np.float64).cumsum()
    aim = uniform * sums[-1]
    block = int(np.searchsorted(sums, aim, side="right"))
    start = block * _BLOCK
    within = shares[start : start + _BLOCK].cumsum(dtype=np.float64)
    # Rounding may put it past the block's end, where there would be a share of 0.
    aim = min(aim - (sums[block - 1] if block else 0.0), np.nextafter(within[-1], 0.0))
    return start + int(np.searchsorted(within, aim, side="right"))
