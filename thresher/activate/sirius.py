"""Sirius: text by a model with sparse activations, corrected by the dense one every few tokens."""

from __future__ import annotations

__all__ = ["Corrected", "Sirius", "Text"]

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import DataError, LayerError, NumericalError
from ..core.options import check_number, check_whole
from ..parts.activations.attached import attached, set_aside
from ..run.cache import KeyValueCache
from ..stream.passes import as_written, settled


@dataclass(frozen=True)
class Corrected:
    """Text that was generated, and what it took.

    Parameters
    ----------
    tokens : Tensor of int64, shape (tokens,)
        What was generated after the prompt.
    drafted : int
        Tokens that the sparse model was run for.
    checks : int
        How often the dense model read several of them at once.
    corrections : int
        How many of its tokens took the place of the sparse model's.
    """

    tokens: torch.Tensor
    drafted: int
    checks: int
    corrections: int

    @property
    def advance(self) -> float:
        """Mean number of tokens that a check settles."""
        return len(self.tokens) / self.checks

    def read(self, sparse: float) -> float:
        """Return the weights read per token, as a share of the dense model's.

        Parameters
        ----------
        sparse : float
            Share that the sparse model reads for a token.
        """
        return (self.drafted * sparse + self.checks) / len(self.tokens)


@dataclass(frozen=True)
class Sirius(Catalogued):
    """Have the dense model check what the sparse one writes, and go on from where it disagrees.

    The sparse model writes ``kernel - 1`` tokens. The dense one then reads them in a single pass,
    which takes about as long as one token of its own: the first token that it finds less likely
    than the threshold is replaced by its own, and those after it are dropped; if it finds none, it
    adds one. Keys and values of what it read take the place of the sparse model's in the cache.

    Parameters
    ----------
    kernel : int, default 16
        Tokens that a check settles at most, at least 2.
    threshold : float, default 0.1
        Probability below which the dense model does not let a token pass, in [0, 1]. At 1 the text
        is the dense model's own.

    Raises
    ------
    OptionError
        If a value is out of range.

    Notes
    -----
    Both models take their likeliest token. The paper drafts several continuations as a tree, too,
    which is left out.

    References
    ----------
    Zhou et al., Sirius: Contextual Sparsity with Correction for Efficient LLMs (2024), section 4.
    """

    kernel: int = 16
    threshold: float = 0.1
    card = Card(
        name="sirius",
        title="Sirius: Contextual Sparsity with Correction for Efficient LLMs",
        authors="Zhou et al.",
        year=2024,
        arxiv="2409.03856",
        summary="Have the dense model check and correct every few tokens that the sparse one "
        "writes.",
    )

    def __post_init__(self) -> None:
        check_whole("kernel, the tokens that a check settles,", self.kernel, least=2)
        check_number("threshold, a probability,", self.threshold, most=1)

    def generate(
        self, model: nn.Module, prompt: torch.Tensor, tokens: int, stop: Collection[int] = ()
    ) -> Corrected:
        """Go on with a prompt.

        Parameters
        ----------
        model : nn.Module
            A causal language model of transformers, with selections: after
            :func:`thresher.activate`, or within
            :meth:`CoreNeurons.applied <thresher.activate.coreinfer.CoreNeurons.applied>`. Without
            its selections it is the dense model.
        prompt : Tensor of int64, shape (tokens,) or (1, tokens)
            Read by the dense model.
        tokens : int
            How many to generate at most.
        stop : collection of int, default ()
            Ids after which the text ends.

        Raises
        ------
        LayerError
            If the model has no selections, or a cache that cannot be shortened.
        DataError
            If the prompt is no row of token ids.
        NumericalError
            If the dense model's logits are no numbers.
        """
        check_whole("tokens", tokens)
        if not attached(model):
            raise LayerError(
                f"{type(model).__name__} drops nothing, so that there is nothing to correct; call "
                "thresher.activate first"
            )
        with settled(model), as_written():
            row = _row(prompt).to(next(model.parameters()).device)
            return self._generate(Text(model, row), tokens, frozenset(stop))

    def _generate(self, text: Text, tokens: int, stop: frozenset[int]) -> Corrected:
        drafted = checks = corrections = 0
        made: list[int] = []
        while len(made) < tokens and not (made and made[-1] in stop):
            most = min(self.kernel, tokens - len(made)) - 1
            draft = text.draft(most, stop)
            kept, own = text.checked(draft, self.threshold)
            corrections += kept < len(draft)
            drafted, checks = drafted + len(draft), checks + 1
            ended = kept == len(draft) > 0 and draft[-1] in stop
            made += draft if ended else [*draft[:kept], own]
        return Corrected(torch.tensor(made), drafted, checks, corrections)


class Text:
    """A text that grows, and the model's cache of all of it but the last token."""

    def __init__(self, model: nn.Module, row: torch.Tensor) -> None:
        self.model, self.last = model, row[:, -1:]
        self.length = row.shape[1] - 1
        self.cache = _Cache(model)
        with set_aside(model):
            if self.length:
                self.cache.run(row[:, :-1])
            self.cache.prove(self.last)

    def draft(self, most: int, stop: frozenset[int]) -> list[int]:
        """Return the sparse model's tokens."""
        draft: list[int] = []
        given = self.last
        while len(draft) < most and not (draft and draft[-1] in stop):
            given = self.cache.run(given)[-1].argmax().reshape(1, 1)
            draft.append(int(given))
        return draft

    def checked(self, draft: list[int], threshold: float) -> tuple[int, int]:
        """Return how many tokens the dense model lets pass, and its own one after these.

        The text then ends with this one.
        """
        self.cache.shorten(self.length)
        proposed = torch.tensor([draft], device=self.last.device, dtype=self.last.dtype)
        with set_aside(self.model):
            logits = self.cache.run(torch.cat([self.last, proposed], dim=1)).float()
        if bool(logits.isnan().any()):
            raise NumericalError(
                "the dense model's logits are NaN; check its weights, or its dtype"
            )
        odds = logits[: len(draft)].softmax(dim=-1).gather(1, proposed.T).flatten()
        kept = int((odds >= threshold).long().cumprod(0).sum())
        own = logits[kept].argmax()
        self.length += kept + 1
        self.cache.shorten(self.length)
        self.last = own.reshape(1, 1)
        return kept, int(own)


class _Cache(KeyValueCache):
    """A cache that can be taken back."""

    remedy = "and what the sparse model writes has to be taken back; use a model of full attention"


def _row(prompt: torch.Tensor) -> torch.Tensor:
    """Return a prompt as one row of token ids."""
    if not isinstance(prompt, torch.Tensor):
        raise DataError(f"a prompt is a tensor of token ids, not {type(prompt).__name__}")
    row = prompt[None] if prompt.dim() == 1 else prompt
    if row.is_floating_point() or row.dim() != 2 or row.shape[0] != 1 or not row.shape[1]:
        raise DataError(
            f"a prompt is a row of token ids, not a tensor of {prompt.dtype} and shape "
            f"{tuple(prompt.shape)}; generate after one prompt at a time"
        )
    return row
