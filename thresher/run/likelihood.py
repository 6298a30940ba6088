"""How likely a language model holds continuations of texts to be."""

from __future__ import annotations

__all__ = ["log_likelihoods"]

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from ..core.errors import NumericalError
from ..parts.limits import check_windows
from .measure.modes import evaluating

#: Tokens of a batch: their logits are as wide as the vocabulary, and all in memory at once.
_TOKENS = 2048

_Ids = tuple[int, ...]


@torch.no_grad()
def log_likelihoods(
    model: nn.Module,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    advance: Callable[[str, int], None] = lambda text, many: None,
) -> list[float]:
    """Return the log-likelihoods of continuations after their contexts.

    Sequences run in batches of one length, so that nothing is padded, and pairs that differ in
    the last token alone share a pass.

    Parameters
    ----------
    model : nn.Module
        A causal language model, called as ``model(input_ids=...)``, with ``logits`` in its output.
    pairs : sequence of (sequence of int, sequence of int)
        Token ids of each context, at least one, and of its continuation, at least one.
    advance : callable, optional
        ``advance(text, many)`` is called when so many more pairs are done.

    Returns
    -------
    list of float
        In the order of `pairs`: sums over the continuation's tokens, in nats.

    Raises
    ------
    DataError
        If a sequence is longer than the model's positions, or a token beyond its vocabulary.
    NumericalError
        If a likelihood is not finite.
    """
    by_input: dict[_Ids, list[int]] = defaultdict(list)
    for index, (context, continuation) in enumerate(pairs):
        by_input[(*context, *continuation)[:-1]].append(index)
    found = [0.0] * len(pairs)
    device = next(model.parameters()).device
    for batch in _batches(by_input):
        ids = torch.tensor(batch, dtype=torch.int64)
        check_windows(model, ids)
        with evaluating(model):
            output: Any = model(input_ids=ids.to(device), use_cache=False)
        for row, sequence in enumerate(batch):
            for index in by_input[sequence]:
                found[index] = _summed(output.logits[row], pairs[index][1])
        del output
        advance(f"{ids.shape[1]} tokens", sum(len(by_input[sequence]) for sequence in batch))
    return found


def _batches(sequences: Iterable[_Ids]) -> Iterator[list[_Ids]]:
    """Yield sequences of one length together, the longest first: memory runs short at once."""
    by_length: dict[int, list[_Ids]] = defaultdict(list)
    for sequence in sequences:
        by_length[len(sequence)].append(sequence)
    for length in sorted(by_length, reverse=True):
        held, many = by_length[length], max(1, _TOKENS // length)
        for start in range(0, len(held), many):
            yield held[start : start + many]


def _summed(logits: torch.Tensor, continuation: Sequence[int]) -> float:
    """Return the log-likelihood of the last tokens, from logits of the tokens before each."""
    targets = torch.tensor(continuation, device=logits.device)
    probabilities = logits[-len(targets) :].float().log_softmax(-1)
    total = float(probabilities.gather(-1, targets.unsqueeze(-1)).double().sum())
    if not math.isfinite(total):
        raise NumericalError("the model's likelihoods are NaN or infinite; its weights are damaged")
    return total
