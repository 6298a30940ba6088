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
    """What a penalty comes to in a model's last pass, and how many neurons were active in it.

    Attributes
    ----------
    density : float
        Share of entries that were not zero in the pass that was taken.
    """

    def __init__(self) -> None:
        # By network: blocks that are run again for their gradients come before the next pass.
        self._terms: dict[str, torch.Tensor] = {}
        self._active: dict[str, float] = {}
        self.density = float("nan")

    def add(self, name: str, hidden: torch.Tensor, penalty: Penalty) -> None:
        """Note what a network passed on."""
        self._terms[name] = penalty(hidden).mean()
        with torch.no_grad():
            self._active[name] = float((hidden != 0).float().mean())

    def __call__(self) -> torch.Tensor:
        """Return the mean over networks, tokens and neurons of the last pass, to be trained by.

        Raises
        ------
        DataError
            If the model did not run since then.
        """
        if not self._terms:
            raise DataError("no network ran since the penalty was last taken; call the model first")
        terms, self._terms = list(self._terms.values()), {}
        self.density = sum(self._active.values()) / len(self._active)
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
            collected.add(network.down.name, hidden, penalty)

    with networks.watched(note):
        yield collected
