"""Penalties on what feed-forward networks pass to their last layer, for training."""

from __future__ import annotations

__all__ = ["HiddenPenalty", "penalised"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..core.errors import DataError
from ..stream.feedforward import FeedForward
from .networks import Networks

#: From hidden activations to a number for each.
Penalty = Callable[[torch.Tensor], torch.Tensor]


class HiddenPenalty:
    """What a penalty comes to in a model's passes, and how many neurons were active in them.

    Attributes
    ----------
    density : float
        Share of entries that were not zero in the last pass that was taken.
    """

    def __init__(self) -> None:
        self._terms: list[torch.Tensor] = []
        self._active: list[float] = []
        self.density = float("nan")

    def add(self, hidden: torch.Tensor, penalty: Penalty) -> None:
        """Note what a network passed on."""
        self._terms.append(penalty(hidden).mean())
        with torch.no_grad():
            self._active.append(float((hidden != 0).float().mean()))

    def __call__(self) -> torch.Tensor:
        """Return the mean over networks, tokens and neurons since the last call, to be trained by.

        Raises
        ------
        DataError
            If the model did not run since then.
        """
        if not self._terms:
            raise DataError("no network ran since the penalty was last taken; call the model first")
        terms, self._terms = self._terms, []
        self.density, self._active = sum(self._active) / len(self._active), []
        return torch.stack(terms).mean()


@contextmanager
def penalised(networks: Networks, penalty: Penalty) -> Iterator[HiddenPenalty]:
    """Collect a penalty on the hidden activations of networks while the context lasts.

    Parameters
    ----------
    networks : Networks
        Whose model trains in the context.
    penalty : callable
        From activations, of any shape, to a number for each.

    Yields
    ------
    HiddenPenalty
        To be called after every pass, and its value added to the loss.
    """
    collected = HiddenPenalty()

    def note(network: FeedForward, hidden: torch.Tensor) -> None:
        if torch.is_grad_enabled():
            collected.add(hidden, penalty)

    with networks.watched(note):
        yield collected
