"""What the body of a request asks for, and everything about it that cannot be done."""

from __future__ import annotations

__all__ = ["Asked", "Problem", "read_chat", "read_completion"]

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from ...core.errors import OptionError
from ..engine.sampling import Sampler
from . import values
from .values import WrongError

#: Fields that would change the answer, with what they may hold because it changes nothing.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
_CHAT_WITHOUT_EFFECT = _WITHOUT_EFFECT | {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
_COMPLETION_WITHOUT_EFFECT = _WITHOUT_EFFECT | {"best_of": (1,), "echo": (False,), "suffix": ("",)}
#: Fields about the caller.
_NOTES = {"user", "metadata", "safety_identifier", "prompt_cache_key"}


class Problem(NamedTuple):
    """A field, and what is wrong with it."""

    field: str
    said: str


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Parameters
    ----------
    model : str, optional
    prompt : str, list of int or list of dict
        Text, tokens, or the messages of a conversation.
    sampler : Sampler
    max_new_tokens : int, optional
    stop : tuple of str
    logprobs : int, optional
        How many likeliest tokens to tell of beside the chosen one.
    stream, usage : bool
        Whether the answer comes in pieces, and tokens are counted at their end.
    """

    model: str | None
    prompt: str | list[int] | list[dict[str, str]]
    sampler: Sampler
    max_new_tokens: int | None
    stop: tuple[str, ...]
    logprobs: int | None
    stream: bool
    usage: bool


def read_chat(body: dict[str, Any]) -> Asked | list[Problem]:
    """Return what a body of ``/v1/chat/completions`` asks for, or all that is wrong with it."""
    fields = _Fields(body)
    messages = fields.take("messages", values.messages, [])
    if not messages and not fields.problems:
        fields.wrong("messages", "is missing or empty; it must be a list of messages")
    tokens = fields.take("max_tokens", values.at_least_one, None)
    newer = fields.take("max_completion_tokens", values.at_least_one, None)
    if None not in (tokens, newer) and tokens != newer:
        fields.wrong("max_tokens", f"is {tokens} and max_completion_tokens {newer}; give one")
    wanted = fields.take("logprobs", values.flag, False)
    top = fields.take("top_logprobs", values.logprobs, None)
    if top is not None and not wanted:
        fields.wrong("top_logprobs", "needs logprobs to be true")
    logprobs = (top or 0) if wanted else None
    return fields.asked(messages, tokens or newer, logprobs, _CHAT_WITHOUT_EFFECT)


def read_completion(body: dict[str, Any]) -> Asked | list[Problem]:
    """Return what a body of ``/v1/completions`` asks for, or all that is wrong with it."""
    fields = _Fields(body)
    prompt = fields.take("prompt", values.prompt, None)
    if prompt is None and not fields.problems:
        fields.wrong("prompt", "is missing; it must be a text or a list of tokens")
    tokens = fields.take("max_tokens", values.at_least_one, 16)  # OpenAI's
    logprobs = fields.take("logprobs", values.logprobs, None)
    return fields.asked(prompt, tokens, logprobs, _COMPLETION_WITHOUT_EFFECT)


class _Fields:
    """The fields that are given and not yet looked at; what is null is not given."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._left = {name: value for name, value in body.items() if value is not None}
        self.problems: list[Problem] = []

    def wrong(self, field: str, said: str) -> None:
        self.problems.append(Problem(field, said))

    def take(self, name: str, check: Callable[[Any], Any], default: Any) -> Any:
        if name not in self._left:
            return default
        try:
            return check(self._left.pop(name))
        except WrongError as wrong:
            self.wrong(name + wrong.place, wrong.said)
            return default

    def asked(
        self,
        prompt: Any,
        max_new_tokens: int | None,
        logprobs: int | None,
        without_effect: dict[str, tuple[Any, ...]],
    ) -> Asked | list[Problem]:
        model = self.take("model", values.text, None)
        sampler = self._sampler()
        stop = self.take("stop", values.stops, ())
        stream = self.take("stream", values.flag, False)
        streamed = self.take("stream_options", values.stream_options, None)
        if streamed is not None and not stream:
            self.wrong("stream_options", "needs stream to be true")
        for name, value in self._left.items():
            held = without_effect.get(name)
            if name not in _NOTES and not (held and _among(value, held)):
                self.wrong(name, "is not supported")
        if self.problems:
            return self.problems
        return Asked(model, prompt, sampler, max_new_tokens, stop, logprobs, stream, bool(streamed))

    def _sampler(self) -> Sampler:
        chosen = {"temperature": 1.0, "top_p": 1.0}  # OpenAI's
        for name, kind in _CHOICES.items():
            found = self.take(name, partial(_choice, name, kind), None)
            if found is not None:
                chosen[name] = found
        if chosen["top_p"] == 1:
            del chosen["top_p"]  # which spares sorting the vocabulary
        return Sampler(**chosen)  # type: ignore[arg-type]


#: How tokens are chosen: the sampler's options, whose bounds it knows itself.
_CHOICES: dict[str, Callable[[Any], Any]] = {
    "temperature": values.temperature,
    "top_k": values.integer,
    "top_p": values.number,
    "min_p": values.number,
    "repetition_penalty": values.penalty,
    "seed": values.seed,
}


def _choice(name: str, kind: Callable[[Any], Any], value: Any) -> Any:
    found = kind(value)
    try:
        Sampler(**{name: found})
    except OptionError as error:
        raise WrongError(str(error).removeprefix(f"{name} ")) from error
    return found


def _among(value: Any, held: tuple[Any, ...]) -> bool:
    """Return whether a value is one of some; true is not the number 1."""
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in held)
