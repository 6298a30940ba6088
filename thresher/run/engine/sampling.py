"""Which token comes next."""

from __future__ import annotations

__all__ = ["Sampler"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.errors import NumericalError, OptionError
from .token import largest

#: Tokens that are mostly likely enough together.
_FEW = 256


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
        shares = np.exp((logits.astype(np.float64) - logits[best]) / self.temperature)
        order = self._candidates(logits, shares)
        probabilities = shares[order]
        # What is likely enough is counted among all tokens, or among the top_k.
        probabilities /= shares.sum() if self.top_k is None else probabilities.sum()
        if self.top_p is not None:
            kept = int(np.searchsorted(probabilities.cumsum(), self.top_p)) + 1
            order, probabilities = order[:kept], probabilities[:kept]
            probabilities /= probabilities.sum()
        if self.min_p is not None:
            likely = probabilities >= self.min_p * probabilities.max()
            order, probabilities = order[likely], probabilities[likely]
            probabilities /= probabilities.sum()
        drawn = np.searchsorted(probabilities.cumsum(), generator.random(), side="right")
        return int(order[min(int(drawn), len(probabilities) - 1)])

    def _penalised(
        self, logits: NDArray[np.float32], before: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        known, logits = np.unique(before), logits.copy()
        held, penalty = logits[known], np.float32(self.repetition_penalty)
        logits[known] = np.where(held > 0, held / penalty, held * penalty)
        return logits

    def _candidates(
        self, logits: NDArray[np.float32], shares: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return the tokens that may be drawn, the likeliest first where that matters."""
        if self.top_k is not None:
            return largest(logits, self.top_k)
        if self.top_p is None:
            return np.arange(len(logits))
        needed, count = self.top_p * shares.sum(), _FEW
        while True:  # to sort a whole vocabulary takes longer than all else of the choice
            order = largest(logits, count)
            if count >= len(logits) or shares[order].sum() >= needed:
                return order
            count *= 8
