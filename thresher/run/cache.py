"""The key-value cache of a model, by whatever name transformers gives and takes it."""

from __future__ import annotations

__all__ = ["KeyValueCache"]

import inspect
from typing import Any

import torch
from torch import nn

from ..core.errors import LayerError


class KeyValueCache:
    """What a model has kept of a text so far, handed on from one call to the next.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        For causal language modelling.

    Attributes
    ----------
    length : int
        Tokens that were read.
    held : object or None
        The cache itself; None before the first token.
    """

    #: What an error says of why the cache is needed, and what to do.
    remedy = "and what was read is not read again; use a model of full attention"

    def __init__(self, model: nn.Module) -> None:
        self.model, self.length = model, 0
        self.held: Any = None
        taken = inspect.signature(model.forward).parameters
        self.name = next((name for name in ("cache", "past_key_values") if name in taken), None)
        # Heads cost as much as several blocks, where they are given every token of a prompt.
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}

    def run(self, ids: torch.Tensor, last: bool = False) -> torch.Tensor:
        """Read more of the text.

        Parameters
        ----------
        ids : Tensor of shape (1, tokens)
            What comes next.
        last : bool, default False
            Whether the logits after the last token are enough.

        Returns
        -------
        Tensor of shape (tokens, vocabulary)
            Logits after each of the ids, or of shape (1, vocabulary) after the last.

        Raises
        ------
        LayerError
            If the cache is not handed on: the next call would be about another text.
        """
        if self.name is None:
            raise self.refusal("cannot be handed on")
        given = {self.name: self.held} | (self._last if last else {})
        output = self.model(input_ids=ids, use_cache=True, **given)
        self.held = next((each for each in vars(output).values() if hasattr(each, "crop")), None)
        self.length += ids.shape[1]
        self.check()
        logits: torch.Tensor = output.logits[0]
        return logits[-1:] if last else logits

    def prove(self, token: torch.Tensor) -> None:
        """Read a token, take it back and read it again, which must give the same.

        Parameters
        ----------
        token : Tensor of shape (1, 1)

        Raises
        ------
        LayerError
            If something of it is left.
        """
        first = self.run(token)
        self.shorten(self.length - 1)
        again = self.run(token)
        self.shorten(self.length - 1)
        if float((again - first).abs().max()) > 0.01 * float(first.abs().max()):
            raise self.refusal("keeps something of a token that was taken back")

    def shorten(self, length: int) -> None:
        """Take tokens back so that as many are left.

        Raises
        ------
        LayerError
            If the cache cannot be cut.
        """
        if length == self.length:
            return
        assert self.held is not None
        try:
            self.held.crop(length - self.length)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise self.refusal(f"cannot be taken back ({error})") from error
        self.length = length
        self.check()

    def check(self) -> None:
        """Raise unless the cache holds what was read."""
        found = 0 if self.held is None else int(self.held.get_seq_length())
        if found != self.length:
            raise self.refusal(f"holds {found} of {self.length} tokens")

    def refusal(self, what: str) -> LayerError:
        """Return an error that says what is wrong with the cache."""
        return LayerError(
            f"the key-value cache of {type(self.model).__name__} {what}, {self.remedy}"
        )
