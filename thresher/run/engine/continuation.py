"""A text that grows token by token, whoever computes the logits."""

from __future__ import annotations

__all__ = ["Continuation"]

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from .sampling import Sampler
from .token import Token, likeliest


class Continuation:
    """A prompt and the tokens that are chosen to follow it.

    Parameters
    ----------
    prompt : array of shape (tokens,), int64
    max_new_tokens : int
    sampler : Sampler
    ends : collection of int
        Tokens that end a text.
    logprobs : int, optional
        See :meth:`~thresher.run.engine.engine.Engine.tokens`.

    Attributes
    ----------
    ended : bool
        Whether a token was chosen that ends texts.
    """

    def __init__(
        self,
        prompt: NDArray[np.int64],
        max_new_tokens: int,
        sampler: Sampler,
        ends: Collection[int],
        logprobs: int | None = None,
    ) -> None:
        self._held = np.concatenate([prompt, np.zeros(max_new_tokens, np.int64)])
        self._length, self._given = len(prompt), len(prompt)
        self._sampler, self._generator = sampler, sampler.generator()
        self._ends, self._logprobs = ends, logprobs
        self.ended = False

    @property
    def text(self) -> NDArray[np.int64]:
        """The prompt and what follows it so far."""
        return self._held[: self._length]

    @property
    def new(self) -> int:
        """How many tokens follow the prompt so far."""
        return self._length - self._given

    @property
    def left(self) -> int:
        """How many tokens may come yet."""
        return 0 if self.ended else len(self._held) - self._length

    def choose(self, logits: NDArray[np.float32]) -> Token | None:
        """Add the next token and return it; None where it ends the text.

        Parameters
        ----------
        logits : array of shape (vocabulary,), float32

        Raises
        ------
        NumericalError
            If a logit is not finite.
        """
        token = Token(self._sampler.choose(logits, self._generator, self.text))
        if token in self._ends:
            self.ended = True
            return None
        if self._logprobs is not None:
            token.logprob, token.top = likeliest(logits, token, self._logprobs)
        self._held[self._length] = token
        self._length += 1
        return token
