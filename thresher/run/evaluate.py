"""Perplexity of language models, and how far a pruned one has moved from the dense."""

from __future__ import annotations

__all__ = ["Evaluation", "compare", "perplexity"]

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.errors import DataError, NumericalError
from .measure.modes import evaluating

#: Positions whose log-probabilities are in float32 at a time; vocabularies are wide.
_POSITIONS = 128


@dataclass(frozen=True)
class Evaluation:
    """How a pruned model compares with the dense one on the same windows.

    Parameters
    ----------
    dense_perplexity, pruned_perplexity : float
        Exponential of the mean next-token loss.
    kl : float
        Mean Kullback-Leibler divergence of the pruned from the dense next-token
        distribution, in nats.
    top1_agreement : float
        Share of positions where both models rank the same token first.
    """

    dense_perplexity: float
    pruned_perplexity: float
    kl: float
    top1_agreement: float


@torch.no_grad()
def perplexity(model: nn.Module | Iterable[torch.Tensor], windows: torch.Tensor) -> float:
    """Return the perplexity of a causal language model.

    Parameters
    ----------
    model : nn.Module or iterable of Tensor
        Called as ``model(input_ids=...)``, with ``logits`` in its output; or those logits, of
        each window's tokens but the last.
    windows : Tensor of shape (windows, length), int64
        Each is scored on its own; its first token is only context.

    Returns
    -------
    float

    Raises
    ------
    DataError
        If there is no window of two tokens.
    NumericalError
        If the loss is not finite.
    """
    _check(windows)
    total = 0.0
    for logits, window in zip(_every_logits(model, windows), windows, strict=True):
        for log_probabilities, targets in _chunks(logits, window):
            total -= float(log_probabilities.gather(-1, targets.unsqueeze(-1)).double().sum())
    return _exponential(total, windows)


@torch.no_grad()
def compare(
    dense: nn.Module | Iterable[torch.Tensor],
    pruned: nn.Module | Iterable[torch.Tensor],
    windows: torch.Tensor,
) -> Evaluation:
    """Evaluate a dense and a pruned model on the same windows.

    Parameters
    ----------
    dense, pruned : nn.Module or iterable of Tensor
        Causal language models of one vocabulary, or their logits; see :func:`perplexity`.
    windows : Tensor of shape (windows, length), int64
        See :func:`perplexity`.

    Returns
    -------
    Evaluation
    """
    _check(windows)
    losses = {"dense": 0.0, "pruned": 0.0}
    divergence, agreement = 0.0, 0
    pairs = zip(_every_logits(dense, windows), _every_logits(pruned, windows), strict=True)
    for window, both in zip(windows, pairs, strict=True):
        if both[0].shape != both[1].shape:
            raise DataError(
                f"the models have vocabularies of {both[0].shape[-1]} and {both[1].shape[-1]} "
                "tokens; compare a model with its own dense original"
            )
        for (p, targets), (q, _) in zip(
            _chunks(both[0], window), _chunks(both[1], window), strict=True
        ):
            losses["dense"] -= float(p.gather(-1, targets.unsqueeze(-1)).double().sum())
            losses["pruned"] -= float(q.gather(-1, targets.unsqueeze(-1)).double().sum())
            divergence += float((p.exp() * (p - q)).double().sum())
            agreement += int((p.argmax(-1) == q.argmax(-1)).sum())
    positions = windows.shape[0] * (windows.shape[1] - 1)
    return Evaluation(
        dense_perplexity=_exponential(losses["dense"], windows),
        pruned_perplexity=_exponential(losses["pruned"], windows),
        kl=divergence / positions,
        top1_agreement=agreement / positions,
    )


def _every_logits(
    model: nn.Module | Iterable[torch.Tensor], windows: torch.Tensor
) -> Iterator[torch.Tensor]:
    if not isinstance(model, nn.Module):
        yield from model
        return
    device = next(model.parameters()).device
    for window in windows:
        # Dropout would make another model of it at every call.
        with evaluating(model):
            output: Any = model(input_ids=window.unsqueeze(0).to(device), use_cache=False)
        yield output.logits[0, :-1]


def _chunks(logits: torch.Tensor, window: torch.Tensor) -> Any:
    """Yield log-probabilities and targets, a few positions at a time."""
    targets = window[1:].to(logits.device)
    for start in range(0, len(targets), _POSITIONS):
        stop = start + _POSITIONS
        yield logits[start:stop].float().log_softmax(-1), targets[start:stop]


def _check(windows: torch.Tensor) -> None:
    if windows.dim() != 2 or windows.shape[0] == 0 or windows.shape[1] < 2:
        raise DataError(
            f"evaluation windows have shape {tuple(windows.shape)}; pass at least one window of "
            "two tokens"
        )


def _exponential(total: float, windows: torch.Tensor) -> float:
    mean = total / (windows.shape[0] * (windows.shape[1] - 1))
    if not math.isfinite(mean):
        raise NumericalError("the model's loss is NaN or infinite; its weights are damaged")
    return math.exp(min(mean, 700.0))
