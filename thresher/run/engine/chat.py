"""Conversations with a model that was trained for them."""

from __future__ import annotations

__all__ = ["Chat", "conversation_ids"]

from collections.abc import Generator
from typing import Any

from ...core.errors import DataError
from .engine import Engine
from .session import Session

#: Of a tokenizer.
NO_TEMPLATE = "the model's tokenizer has no chat template, so it was not trained to chat"


class Chat:
    """A conversation: what was said before is part of every prompt.

    Parameters
    ----------
    engine : Engine
        Of a model whose tokenizer has a chat template.
    system : str, optional
        What the model is told before.
    **options
        See :meth:`~thresher.run.engine.engine.Engine.stream`. An answer may fill the context unless
        ``max_new_tokens`` is less.

    Attributes
    ----------
    messages : list of dict
        What was said, each with ``"role"`` and ``"content"``.

    Raises
    ------
    DataError
        If there is no tokenizer, or it has no chat template.
    """

    def __init__(self, engine: Engine, system: str | None = None, **options: Any) -> None:
        if getattr(engine.tokenizer, "chat_template", None) is None:
            raise DataError(
                f"{NO_TEMPLATE}; use `thresher generate`, or a model made for chats, often called "
                "Instruct or Chat"
            )
        self._engine, self._options = engine, options
        self._session = Session(engine.compiled)
        self.messages: list[dict[str, str]] = []
        if system is not None:
            self.messages.append({"role": "system", "content": system})

    def answer(self, text: str) -> Generator[str, None, None]:
        """Yield the answer to a message, in pieces of whole characters.

        An answer that is not heard out stays in the conversation as far as it came.

        Parameters
        ----------
        text : str

        Raises
        ------
        DataError
            If the conversation is longer than the context; the message is then not part of it.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        ids = conversation_ids(self._engine.tokenizer, asked)
        if len(ids) >= self._engine.context:
            raise DataError(
                f"the conversation is {len(ids)} tokens long and the model's context "
                f"{self._engine.context}; begin a new one"
            )
        most = self._options.get("max_new_tokens", self._engine.context)
        options = self._options | {"max_new_tokens": min(most, self._engine.context - len(ids))}
        pieces = self._engine.stream(ids, session=self._session, **options)
        self.messages = asked
        heard = ""
        try:
            for piece in pieces:
                heard += piece
                yield piece
        finally:
            self.messages.append({"role": "assistant", "content": heard})


def conversation_ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Return the prompt that has a model answer to a conversation.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        With a chat template.
    messages : list of dict
        Each with ``"role"`` and ``"content"``.
    """
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    # Templates write special tokens themselves.
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
