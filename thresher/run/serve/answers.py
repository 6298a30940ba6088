"""Answers and errors in the form of OpenAI's interface."""

from __future__ import annotations

__all__ = ["ChatForm", "CompletionForm", "Form", "TokenTexts", "error_body", "event", "models_body"]

import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..engine.text import Piece
from ..engine.token import Token
from .scheduler import End

#: For what is impossible to the model: JSON has no infinite numbers. It is OpenAI's too.
_LEAST_LOGPROB = -9999.0
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"

Json = dict[str, Any]


def event(data: Json | str) -> bytes:
    """Return a server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def error_body(said: str, kind: str, field: str | None = None, code: str | None = None) -> Json:
    """Return what is wrong."""
    return {"error": {"message": said, "type": kind, "param": field, "code": code}}


def models_body(name: str, started: int) -> Json:
    """Return the list of the only model."""
    model = {"id": name, "object": "model", "created": started, "owned_by": "thresher"}
    return {"object": "list", "data": [model]}


class TokenTexts:
    """The text of single tokens.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.text = lru_cache(maxsize=65536)(self._text)

    def _text(self, token: int) -> str:
        # The second of two: some tokenizers write the first one without its space.
        return self._decoded([token, token])[len(self._decoded([token])) :]

    def _decoded(self, tokens: list[int]) -> str:
        text = self._tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)


class Form(ABC):
    """How one answer is written.

    Parameters
    ----------
    model : str
        Its name.
    texts : TokenTexts
    logprobs : bool
    usage : bool
        Whether what is streamed ends with the count of tokens.
    """

    #: What the answer's number begins with; what it is called, whole and in pieces.
    prefix: str
    kind: str
    piece_kind: str

    def __init__(self, model: str, texts: TokenTexts, logprobs: bool, usage: bool) -> None:
        self._texts, self._logprobs, self._usage = texts, logprobs, usage
        number = f"{self.prefix}-{uuid.uuid4().hex}"
        self._head = {"id": number, "created": int(time.time()), "model": model}

    def whole(self, pieces: Sequence[Piece], end: End) -> Json:
        """Return an answer that does not come in pieces."""
        choice = self._choice("".join(pieces), self._likelihoods(pieces), end.reason)
        return self._body(self.kind, [choice]) | {"usage": usage(end)}

    def first(self) -> list[Json]:
        """Return what comes before all pieces."""
        return []

    def piece(self, piece: Piece) -> Json:
        """Return a piece of a streamed answer."""
        return self._chunk(self._part(piece, self._likelihoods([piece]), None))

    def last(self, end: End) -> list[Json]:
        """Return what comes after all pieces."""
        last = [self._chunk(self._part("", None, end.reason))]
        if self._usage:
            last.append(self._body(self.piece_kind, []) | {"usage": usage(end)})
        return last

    def _chunk(self, choice: Json) -> Json:
        counted = {"usage": None} if self._usage else {}
        return self._body(self.piece_kind, [choice]) | counted

    def _body(self, kind: str, choices: list[Json]) -> Json:
        return self._head | {"object": kind, "choices": choices}

    def _likelihoods(self, pieces: Sequence[Piece]) -> Json | None:
        return self._likely(pieces) if self._logprobs else None

    @abstractmethod
    def _choice(self, text: str, logprobs: Json | None, reason: str) -> Json:
        """Return the only choice of a whole answer."""

    @abstractmethod
    def _part(self, text: str, logprobs: Json | None, reason: str | None) -> Json:
        """Return the only choice of a piece."""

    @abstractmethod
    def _likely(self, pieces: Sequence[Piece]) -> Json:
        """Return log-probabilities of the tokens of pieces, the next ones of the answer."""


class ChatForm(Form):
    """Of ``/v1/chat/completions``."""

    prefix, kind, piece_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def first(self) -> list[Json]:
        """Return whose message it is."""
        return [self._chunk(_delta({"role": "assistant", "content": ""}, None, None))]

    def _choice(self, text: str, logprobs: Json | None, reason: str) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason}

    def _part(self, text: str, logprobs: Json | None, reason: str | None) -> Json:
        return _delta({"content": text} if text else {}, logprobs, reason)

    def _likely(self, pieces: Sequence[Piece]) -> Json:
        entries = [self._entry(token) for piece in pieces for token in piece.tokens]
        return {"content": entries, "refusal": None}

    def _entry(self, token: Token) -> Json:
        top = [self._named(each, logprob) for each, logprob in token.top]
        return self._named(token, token.logprob) | {"top_logprobs": top}

    def _named(self, token: int, logprob: float | None) -> Json:
        text = self._texts.text(int(token))
        # What is no whole character has bytes that the text does not tell.
        held = None if _INCOMPLETE in text else list(text.encode())
        return {"token": text, "logprob": _finite(logprob), "bytes": held}


class CompletionForm(Form):
    """Of ``/v1/completions``."""

    prefix, kind, piece_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, texts: TokenTexts, logprobs: bool, usage: bool) -> None:
        super().__init__(model, texts, logprobs, usage)
        self._offset = 0

    def _choice(self, text: str, logprobs: Json | None, reason: str | None) -> Json:
        return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}

    _part = _choice

    def _likely(self, pieces: Sequence[Piece]) -> Json:
        tokens, offsets = [], []
        for piece in pieces:
            place = self._offset
            for token in piece.tokens:
                tokens.append(token)
                offsets.append(place)
                place += len(self._texts.text(int(token)))
            self._offset += len(piece)  # which is less where several tokens are one character
        return {
            "tokens": [self._texts.text(int(token)) for token in tokens],
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [self._top(token) for token in tokens],
            "text_offset": offsets,
        }

    def _top(self, token: Token) -> Json:
        # The chosen one is always among them.
        shown = [*token.top, (int(token), token.logprob)]
        return {self._texts.text(each): _finite(logprob) for each, logprob in shown}


def usage(end: End) -> Json:
    """Return how many tokens there were."""
    return {
        "prompt_tokens": end.prompt,
        "completion_tokens": end.new,
        "total_tokens": end.prompt + end.new,
        "prompt_tokens_details": {"cached_tokens": end.cached},
    }


def _delta(delta: Json, logprobs: Json | None, reason: str | None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _finite(logprob: float | None) -> float:
    return max(_LEAST_LOGPROB, logprob or 0.0)
