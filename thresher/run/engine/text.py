"""Text from tokens as they come."""

from __future__ import annotations

__all__ = ["Piece", "TextStream"]

from collections.abc import Sequence
from typing import Any

from .token import Token

#: What stands for bytes that are no character, or only the beginning of one.
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class Piece(str):
    """A piece of text.

    Attributes
    ----------
    tokens : tuple of Token
        Those that came since the last piece. What a stop string cuts off has none of its own.
    """

    tokens: tuple[Token, ...] = ()


class TextStream:
    """Turn tokens into pieces of text, none of which is taken back.

    A character whose bytes are in several tokens, and what may be the beginning of a stop string,
    is held back until it is decided.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Of transformers.
    prompt : sequence of int
        What comes before: the first token's text may depend on it.
    stop : sequence of str
        Text ends before the first of them.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        # Only the last tokens of the prompt: how a tokenizer writes a token depends on few others.
        self._held = list(prompt[-4:])
        self._known = len(self._decoded())
        self._pending = ""
        self._fresh: list[Token] = []
        self.stopped = False

    def add(self, token: Token) -> Piece:
        """Return the text that a token completes, often empty."""
        self._held.append(token)
        self._fresh.append(token)
        text = self._decoded()
        if text.endswith(_INCOMPLETE):
            return Piece()
        new = text[self._known :]
        self._held = self._held[-4:]
        self._known = len(self._decoded())
        return self._piece(self._let_go(new))

    def rest(self) -> Piece:
        """Return what was held back, once no token follows."""
        if self.stopped:
            return Piece()
        text = self._pending + self._decoded()[self._known :]
        self._pending = ""
        return self._piece(text)

    def _piece(self, text: str) -> Piece:
        piece = Piece(text)
        if piece:
            piece.tokens = tuple(self._fresh)
            self._fresh.clear()
        return piece

    def _decoded(self) -> str:
        text = self._tokenizer.decode(
            self._held, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _let_go(self, piece: str) -> str:
        text = self._pending + piece
        ends = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            return text[: min(ends)]
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._pending = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of a text begin the stop string."""
    return next(
        (n for n in range(min(len(text), len(stop)), 0, -1) if stop.startswith(text[-n:])), 0
    )
