"""What the values of a request's fields may be: each raises WrongError for what is none."""

from __future__ import annotations

__all__ = [
    "WrongError",
    "at_least_one",
    "flag",
    "integer",
    "logprobs",
    "messages",
    "number",
    "penalty",
    "prompt",
    "seed",
    "stops",
    "stream_options",
    "temperature",
    "text",
]

from typing import Any

#: What a conversation's messages may be from; a developer is what used to be the system.
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

#: Bounds of OpenAI's.
_MOST_TEMPERATURE, _MOST_LOGPROBS, _SEEDS = 2, 20, 2**63
#: Beyond these, products with logits are no numbers.
_PENALTIES = (0.01, 100)
#: Every token's text is searched for all of them.
_MOST_STOPS = 16
#: Fields of a message that clients send back as they got them, with what they then hold.
_ECHOED: dict[str, Any] = {"annotations": []}


class WrongError(Exception):
    """What is wrong with a value, and at which place in it."""

    def __init__(self, said: str, place: str = "") -> None:
        self.said, self.place = said, place


def number(value: Any) -> float:
    """Return a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongError("must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise WrongError("is no number that a computer can hold") from error


def integer(value: Any) -> int:
    """Return an integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongError("must be an integer")
    return value


def temperature(value: Any) -> float:
    """Return a temperature."""
    if number(value) > _MOST_TEMPERATURE:
        raise WrongError(f"is {value}; it must be at most {_MOST_TEMPERATURE}")
    return number(value)


def penalty(value: Any) -> float:
    """Return a repetition penalty."""
    low, high = _PENALTIES
    if not low <= number(value) <= high:
        raise WrongError(f"is {value}; it must be from {low} to {high}")
    return number(value)


def seed(value: Any) -> int:
    """Return a seed, as one that is not negative."""
    if not -_SEEDS <= integer(value) < _SEEDS:
        raise WrongError(f"is {value}; it must fit 64 bits")
    return int(value) % 2**64


def flag(value: Any) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise WrongError("must be true or false")
    return value


def text(value: Any) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise WrongError("must be a text")
    return value


def at_least_one(value: Any) -> int:
    """Return a count."""
    if integer(value) < 1:
        raise WrongError(f"is {value}; it must be at least 1")
    return int(value)


def logprobs(value: Any) -> int:
    """Return how many likeliest tokens to tell of."""
    if not 0 <= integer(value) <= _MOST_LOGPROBS:
        raise WrongError(f"is {value}; it must be from 0 to {_MOST_LOGPROBS}")
    return int(value)


def stops(value: Any) -> tuple[str, ...]:
    """Return texts to end before."""
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise WrongError("must be a text or a list of texts")
    if "" in stops or len(stops) > _MOST_STOPS:
        raise WrongError(f"must be at most {_MOST_STOPS} texts, none of them empty")
    return tuple(stops)


def stream_options(value: Any) -> bool:
    """Return whether tokens are counted at the end of a stream."""
    if not isinstance(value, dict):
        raise WrongError("must be an object")
    for name, held in value.items():
        if name != "include_usage" and held not in (None, False):
            raise WrongError("is not supported", f".{name}")
    held = value.get("include_usage")
    return held is not None and flag(held)


def prompt(value: Any) -> str | list[int]:
    """Return a text, or its tokens."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]  # a batch of one
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(each, str | list) for each in value):
        raise WrongError("has several texts, which is not supported; ask for one at a time")
    if not isinstance(value, list) or not all(_is_token(each) for each in value):
        raise WrongError("must be a text or a list of tokens")
    return value


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _SEEDS


def messages(value: Any) -> list[dict[str, str]]:
    """Return a conversation, its contents as plain text."""
    if not isinstance(value, list):
        raise WrongError("must be a list of messages")
    return [_message(each, f"[{i}]") for i, each in enumerate(value)]


def _message(message: Any, place: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise WrongError("must be an object with role and content", place)
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise WrongError(f"must be one of {', '.join(_ROLES)}", f"{place}.role")
    for name, held in message.items():
        known = name in ("role", "content") or held is None or _ECHOED.get(name) == held
        if not known:
            raise WrongError("is not supported", f"{place}.{name}")
    return {"role": _ROLES[role], "content": _content(message.get("content"), f"{place}.content")}


def _content(value: Any, place: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise WrongError("must be a text or a list of parts", place)
    texts = []
    for i, part in enumerate(value):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise WrongError("must be an object with a type", f"{place}[{i}]")
        if part["type"] != "text":
            raise WrongError("is not supported: only parts of the type text are", f"{place}[{i}]")
        if not isinstance(part.get("text"), str):
            raise WrongError("must be a text", f"{place}[{i}].text")
        texts.append(part["text"])
    return "".join(texts)
