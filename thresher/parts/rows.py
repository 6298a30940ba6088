"""Rows of data sets as text: plain texts, and chats through the tokenizer's template."""

from __future__ import annotations

__all__ = ["has_text", "joined_text"]

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.errors import DataError

_CHATS = ("messages", "conversations")
#: What data sets in the form of ShareGPT call those who speak.
_ROLES = {"human": "user", "gpt": "assistant"}


def has_text(row: Any) -> bool:
    """Return whether a row is a text, or a mapping with one or with a chat, and no token ids.

    Parameters
    ----------
    row : Any
        An entry of a list or data set.
    """
    if not isinstance(row, Mapping) or "input_ids" in row:
        return isinstance(row, str)
    return isinstance(row.get("text"), str) or _chat_of(row) is not None


def joined_text(rows: Iterable[tuple[str, Any]], tokenizer: Any, most: float) -> str:
    """Return the texts of rows as one.

    Texts are parted by a blank line. Chats are what the tokenizer's template makes of them, one
    right after the other.

    Parameters
    ----------
    rows : iterable of (str, str or mapping)
        Where each row is, for messages; and a text, or a mapping with ``text``, or with the turns
        of a chat as ``messages`` or ``conversations``: mappings with ``role`` and ``content``, or
        ``from`` and ``value``.
    tokenizer : transformers tokenizer
        Has the template.
    most : float
        Stop where there are so many characters.

    Raises
    ------
    DataError
        Naming the row that has neither, or that the template does not take; or if the tokenizer
        has no template.
    """
    pieces: list[str] = []
    size = 0
    for where, row in rows:
        piece = _text(where, row, tokenizer)
        if pieces and _chat_of(row) is None:
            piece = "\n\n" + piece
        pieces.append(piece)
        size += len(piece)
        if size >= most:
            break
    return "".join(pieces)


def _chat_of(row: Any) -> Sequence[Any] | None:
    """Return the turns of a row that is a chat; one with a text is no chat."""
    if not isinstance(row, Mapping) or isinstance(row.get("text"), str):
        return None
    for name in _CHATS:
        if isinstance(row.get(name), list | tuple):
            return row[name]  # type: ignore[no-any-return]
    return None


def _text(where: str, row: Any, tokenizer: Any) -> str:
    if isinstance(row, str):
        return row
    turns = _chat_of(row)
    if turns is not None:
        return _rendered(where, turns, tokenizer)
    if isinstance(row, Mapping) and isinstance(row.get("text"), str):
        return row["text"]  # type: ignore[no-any-return]
    held = type(row).__name__
    if isinstance(row, Mapping):
        held = ", ".join(f"{key!r} ({type(value).__name__})" for key, value in row.items())
    raise DataError(
        f"{where} has no text: it has {held or 'nothing'}, and a row must have a string as 'text', "
        "or the turns of a chat as 'messages' or 'conversations'"
    )


def _rendered(where: str, turns: Sequence[Any], tokenizer: Any) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f"{where} is a chat, and the model's tokenizer has no chat template to write it with; "
            "use the instruction-tuned model's tokenizer, set tokenizer.chat_template and save it "
            "beside the model, or write the chats out as texts (lines with 'text')"
        )
    messages = [_message(where, turn) for turn in turns]
    if not messages:
        raise DataError(f"{where} is a chat without a turn; leave it out")
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception as error:  # templates raise errors of their own
        raise DataError(
            f"{where} is a chat that the tokenizer's template does not take: {error}"
        ) from error


def _message(where: str, turn: Any) -> dict[str, Any]:
    """Return a turn as templates expect it, with whatever else it holds."""
    if isinstance(turn, Mapping):
        if isinstance(turn.get("role"), str) and "content" in turn:
            return {key: value for key, value in turn.items() if value is not None}
        role, content = turn.get("from"), turn.get("value")
        if isinstance(role, str) and isinstance(content, str):
            return {"role": _ROLES.get(role, role), "content": content}
    held = ", ".join(map(repr, turn)) if isinstance(turn, Mapping) else repr(turn)
    raise DataError(
        f"{where} is a chat with a turn that has {held or 'nothing'}; a turn must have 'role' and "
        "'content'"
    )
