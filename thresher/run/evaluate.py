"""Perplexity of language models, and how far a pruned one has moved from the dense."""

from __future__ import annotations

__all__ = ["Evaluation", "compare", "perplexity"]

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import DataError, NumericalError
from ..parts.limits import check_windows
from .measure.modes import evaluating

#: Positions whose log-probabilities are in float32 at a time: they stay in a core's cache.
_POSITIONS = 8


class Sliced(Protocol):
    """Logits of a window's tokens, of which a few are made at a time."""

    @property
    def shape(self) -> torch.Size:
        """Tokens and vocabulary."""

    @property
    def device(self) -> torch.device:
        """Where they are made."""

    def slices(self, multiple: int) -> Iterator[torch.Tensor]:
        """Yield them in order, in slices that hold a multiple of tokens; the last may hold less."""


@runtime_checkable
class Scoring(Protocol):
    """A model that is no module, such as :class:`~thresher.run.engine.engine.Engine`."""

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the logits after every token of a text."""


_Logits = torch.Tensor | Sliced


@dataclass(frozen=True)
class Evaluation(Catalogued):
    """How a pruned model compares with the dense one on the same windows.

    Parameters
    ----------
    dense_perplexity, pruned_perplexity : float
        Exponential of the mean next-token loss.
    kl : float
        Mean Kullback-Leibler divergence of the pruned from the dense next-token
        distribution, in nats. It hears most of what the dense model finds likely.
    js : float
        Mean Jensen-Shannon divergence of both distributions, in nats, from 0 to log 2. It does not
        change when both are exchanged, and no token counts without bound.
    top1_agreement : float
        Share of positions where both models rank the same token first.
    dense_losses, pruned_losses : list of float
        Mean next-token loss of every window, in nats: what standard errors are taken from.

    References
    ----------
    Khanal and Capone, Evaluating the Impact of Compression Techniques on Task-Specific
    Performance of Large Language Models (2024), for the Jensen-Shannon divergence.
    """

    card = Card(
        name="js-divergence",
        title=(
            "Evaluating the Impact of Compression Techniques on Task-Specific Performance of Large "
            "Language Models"
        ),
        authors="Bishwash Khanal and Jeffery M. Capone",
        year=2024,
        arxiv="2409.11233",
        summary="Jensen-Shannon divergence of a pruned model's next tokens from the dense one's.",
    )

    dense_perplexity: float
    pruned_perplexity: float
    kl: float
    js: float
    top1_agreement: float
    dense_losses: list[float]
    pruned_losses: list[float]


@torch.no_grad()
def perplexity(model: nn.Module | Scoring | Iterable[_Logits], windows: torch.Tensor) -> float:
    """Return the perplexity of a causal language model.

    Parameters
    ----------
    model : nn.Module, Engine, or iterable of Tensor or Sliced
        Called as ``model(input_ids=...)``, with ``logits`` in its output; an engine; or those
        logits, of each window's tokens but the last.
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
    # Passes that wait between blocks are left where something goes wrong, not when Python ends.
    with closing(_every_logits(model, windows)) as logits:
        for window in windows:
            total += _loss(_next(logits), window)
        _end(logits)
    return _exponential(total, windows)


@torch.no_grad()
def compare(
    dense: nn.Module | Scoring | Iterable[_Logits],
    pruned: nn.Module | Scoring | Iterable[_Logits],
    windows: torch.Tensor,
) -> Evaluation:
    """Evaluate a dense and a pruned model on the same windows.

    Parameters
    ----------
    dense, pruned : nn.Module, Engine, or iterable of Tensor or Sliced
        Causal language models of one vocabulary, or their logits; see :func:`perplexity`.
    windows : Tensor of shape (windows, length), int64
        See :func:`perplexity`.

    Returns
    -------
    Evaluation
    """
    _check(windows)
    with ExitStack() as stack:
        logits = [
            stack.enter_context(closing(_every_logits(model, windows))) for model in (dense, pruned)
        ]
        found = [_distance(_next(logits[0]), _next(logits[1]), window) for window in windows]
        for each in logits:
            _end(each)
    of_windows = torch.stack(found)
    loss, pruned_loss, kl, js, agreement = of_windows.sum(0).tolist()
    positions = windows.shape[0] * (windows.shape[1] - 1)
    dense_losses, pruned_losses = (of_windows[:, :2] / (windows.shape[1] - 1)).T.tolist()
    return Evaluation(
        dense_perplexity=_exponential(loss, windows),
        pruned_perplexity=_exponential(pruned_loss, windows),
        kl=kl / positions,
        js=js / positions,
        top1_agreement=agreement / positions,
        dense_losses=dense_losses,
        pruned_losses=pruned_losses,
    )


# Logits are handed from call to call, and never named in a loop, whose variables and whose zip
# would hold those of the window before while the next ones are made.
def _loss(logits: _Logits, window: torch.Tensor) -> float:
    return sum(_negative(p, targets) for p, targets in _chunks(logits, window))


def _negative(log_probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    return -float(log_probabilities.gather(-1, targets.unsqueeze(-1)).double().sum())


def _distance(dense: _Logits, pruned: _Logits, window: torch.Tensor) -> torch.Tensor:
    """Return both losses, both divergences and agreement, summed over a window's positions."""
    if dense.shape != pruned.shape:
        raise DataError(
            f"the models have vocabularies of {dense.shape[-1]} and {pruned.shape[-1]} "
            "tokens; compare a model with its own dense original"
        )
    totals = torch.zeros(5, dtype=torch.float64)
    chunks = zip(_chunks(dense, window), _chunks(pruned, window), strict=True)
    for (p, targets), (q, _) in chunks:
        middle = torch.logaddexp(p, q) - math.log(2)
        js = (_kl(p, middle) + _kl(q, middle)) / 2
        agreement = int((p.argmax(-1) == q.argmax(-1)).sum())
        losses = (_negative(p, targets), _negative(q, targets))
        totals += torch.tensor([*losses, _kl(p, q), js, agreement], dtype=torch.float64)
    return totals


def _kl(p: torch.Tensor, q: torch.Tensor) -> float:
    """Return the divergence of `q` from `p`, of which the logarithms are given."""
    # Never negative but for rounding, where both are the same.
    return float((p.exp() * (p - q)).sum(-1).clamp(min=0).double().sum())


def _next(logits: Iterator[_Logits]) -> _Logits:
    for found in logits:
        return found
    raise DataError("there are logits of fewer windows than are evaluated; pass those of every one")


def _end(logits: Iterator[_Logits]) -> None:
    """Let what makes logits come to its end."""
    for _ in logits:
        raise DataError("there are logits of more windows than are evaluated; pass all windows")


def _every_logits(
    model: nn.Module | Scoring | Iterable[_Logits], windows: torch.Tensor
) -> Generator[_Logits, None, None]:
    if isinstance(model, nn.Module):
        yield from _module_logits(model, windows)
    elif isinstance(model, Scoring):
        for window in windows:
            yield model.logits(window)[:-1]
    else:
        yield from model


def _module_logits(model: nn.Module, windows: torch.Tensor) -> Iterator[_Logits]:
    check_windows(model, windows)
    device = next(model.parameters()).device
    for window in windows:
        # Dropout would make another model of it at every call.
        with evaluating(model):
            output: Any = model(input_ids=window.unsqueeze(0).to(device), use_cache=False)
        yield output.logits[0, :-1]


def _chunks(logits: _Logits, window: torch.Tensor) -> Any:
    """Yield log-probabilities and targets, a few positions at a time."""
    if len(window) - 1 != logits.shape[0]:
        raise DataError(
            f"there are logits of {logits.shape[0]} tokens of a window of {len(window)}; pass "
            "those of all tokens but the last"
        )
    targets = iter(window[1:].to(logits.device).split(_POSITIONS))
    for part in (logits,) if isinstance(logits, torch.Tensor) else logits.slices(_POSITIONS):
        for some in part.split(_POSITIONS):
            yield some.float().log_softmax(-1), next(targets)


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
