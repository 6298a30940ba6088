"""An audit of neurons by whether they fire: dead ones, detectors of tokens, and of positions."""

from __future__ import annotations

__all__ = ["NetworkAudit", "NeuronAudit"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import DataError
from ..core.options import check_number, check_whole
from ..stream.feedforward import FeedForward
from ..stream.passes import calibrating, call
from .networks import Networks, check_relu, find_networks


@dataclass(frozen=True)
class NetworkAudit:
    """When the neurons of a feed-forward network fire.

    Parameters
    ----------
    network : FeedForward
        Whose they are.
    tokens : Tensor of int64, shape (different tokens,)
        Those of the data, by their ids.
    by_token : Tensor of int64, shape (different tokens, neurons)
        How often each neuron fires at each of them.
    by_position : Tensor of int64, shape (positions, neurons)
        How often at each position.
    seen : Tensor of int64, shape (positions,)
        How often there was a token at each position.
    settings : NeuronAudit
        What counts as a detector.
    """

    network: FeedForward
    tokens: torch.Tensor
    by_token: torch.Tensor
    by_position: torch.Tensor
    seen: torch.Tensor
    settings: NeuronAudit

    @property
    def dead(self) -> torch.Tensor:
        """Mask of the neurons that never fire, which can be removed without any difference."""
        return self.by_token.sum(dim=0) == 0

    @property
    def detectors(self) -> torch.Tensor:
        """Mask of the neurons whose firings a few tokens cover."""
        counts, _ = self.by_token.sort(dim=0, descending=True)
        covered = counts[: self.settings.tokens].sum(dim=0)
        return ~self.dead & (covered >= self.settings.coverage * counts.sum(dim=0))

    def triggers(self, neuron: int) -> torch.Tensor:
        """Return ids of the fewest tokens that cover a neuron's firings, most frequent first."""
        counts, order = self.by_token[:, neuron].sort(descending=True)
        before = counts.cumsum(0) - counts
        needed = (before < self.settings.coverage * counts.sum()) & (counts > 0)
        return self.tokens[order[needed]]

    @property
    def information(self) -> torch.Tensor:
        """Mutual information of firing and position, in nats, of shape (neurons,)."""
        seen = self.seen.double()[:, None]
        fires = self.by_position.double()
        total = seen.sum()
        found = torch.zeros_like(fires[0])
        for joint, marginal in (
            (fires, fires.sum(dim=0)),
            (seen - fires, total - fires.sum(dim=0)),
        ):
            expected = marginal * seen / total
            ratio = torch.where(joint > 0, joint / expected.clamp(min=1e-300), 1.0)
            found += (joint * ratio.log()).sum(dim=0) / total
        return found

    @property
    def positional(self) -> torch.Tensor:
        """Mask of the neurons that tell positions."""
        return self.information > self.settings.information

    def suppression(self, unembedding: torch.Tensor) -> torch.Tensor:
        """Return where detectors' triggers stand among all tokens that they promote or suppress.

        Parameters
        ----------
        unembedding : Tensor of shape (vocabulary, channels)
            What the model multiplies its last state by.

        Returns
        -------
        Tensor of shape (detectors,)
            Mean rank of the triggers in what a neuron adds to the logits: 0 where they are the most
            suppressed of all, 0.5 by chance, 1 where they are the most promoted.
        """
        updates = unembedding.float() @ self.network.down.matrix()
        ranks = updates.argsort(dim=0).argsort(dim=0).float() / (len(updates) - 1)
        places = self.detectors.nonzero().flatten().tolist()
        return torch.tensor([float(ranks[self.triggers(k), k].mean()) for k in places])


@dataclass(frozen=True)
class NeuronAudit(Catalogued):
    """Sort the neurons of a language model with ReLUs by when they fire.

    Parameters
    ----------
    tokens : int, default 5
        So many tokens cover the firings of a detector, at most.
    coverage : float, default 0.95
        Share of firings that counts as covered.
    information : float, default 0.05
        Mutual information of firing and position, in nats, above which a neuron is positional.

    Raises
    ------
    OptionError
        If a value is out of range.

    Notes
    -----
    Tokens alone are looked for, where the paper has n-grams of them besides.

    References
    ----------
    Elena Voita, Javier Ferrando, Christoforos Nalmpantis, Neurons in Large Language Models: Dead,
    N-gram, Positional (2023), sections 3 to 5.
    """

    tokens: int = 5
    coverage: float = 0.95
    information: float = 0.05
    card = Card(
        name="neuron-audit",
        title="Neurons in Large Language Models: Dead, N-gram, Positional",
        authors="Elena Voita, Javier Ferrando, Christoforos Nalmpantis",
        year=2023,
        arxiv="2309.04827",
        summary="Sort neurons by when they fire: never, at few tokens, at some positions.",
    )

    def __post_init__(self) -> None:
        check_whole("tokens", self.tokens)
        check_number("coverage, of a detector's firings,", self.coverage, above=0, most=1)
        check_number("information, in nats,", self.information)

    def audit(self, model: nn.Module, data: Any = None, **texts: Any) -> list[NetworkAudit]:
        """Record which neurons fire at which tokens and positions.

        Parameters
        ----------
        model : nn.Module
            A language model whose networks have ReLUs.
        data, **texts : optional
            See :func:`thresher.activate`: rows of token ids, without padding, or texts.

        Returns
        -------
        list of NetworkAudit
            In the order in which the networks run.

        Raises
        ------
        ThresherError
            If a network has no ReLU, or the data has no token ids.
        """
        networks = find_networks(model, data, **texts)
        check_relu(networks.networks, "an audit of which neurons fire")
        ids = [_ids(sample) for sample in networks.samples]
        counts = {network.down.name: _Counts(ids) for network in networks.networks}
        _count(networks, ids, counts)
        return [
            NetworkAudit(network, *counts[network.down.name].found(), self)
            for network in networks.networks
        ]


class _Counts:
    """Firings of a network's neurons by token and by position."""

    def __init__(self, ids: list[torch.Tensor]) -> None:
        self.tokens = torch.cat([each.flatten() for each in ids]).unique()
        self.positions = max(each.shape[-1] for each in ids)
        self.by_token: torch.Tensor | None = None
        self.by_position: torch.Tensor | None = None
        self.seen = torch.zeros(self.positions, dtype=torch.int64)

    def add(self, ids: torch.Tensor, hidden: torch.Tensor) -> None:
        if tuple(hidden.shape[:-1]) != tuple(ids.shape):
            raise DataError(
                f"a network is given {tuple(hidden.shape[:-1])} tokens where the data has "
                f"{tuple(ids.shape)}; pass rows of one length without padding"
            )
        # Of gates that are closed, whatever they scale.
        fires = (hidden != 0).flatten(0, -2).cpu().long()
        if self.by_token is None or self.by_position is None:
            self.by_token = fires.new_zeros(len(self.tokens), fires.shape[-1])
            self.by_position = fires.new_zeros(self.positions, fires.shape[-1])
        self.by_token.index_add_(0, torch.searchsorted(self.tokens, ids.flatten()), fires)
        places = torch.arange(ids.shape[-1]).expand(ids.shape).flatten()
        self.by_position.index_add_(0, places, fires)
        self.seen += torch.bincount(places, minlength=self.positions)

    def found(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        if self.by_token is None or self.by_position is None:
            raise DataError("a network was not reached by the data; pass more data")
        return self.tokens, self.by_token, self.by_position, self.seen


def _count(networks: Networks, ids: list[torch.Tensor], counts: Mapping[str, _Counts]) -> None:
    with torch.no_grad(), calibrating(networks.model):
        for sample, row in zip(networks.samples, ids, strict=True):

            def note(network: FeedForward, hidden: torch.Tensor, row: torch.Tensor = row) -> None:
                counts[network.down.name].add(row, hidden)

            with networks.watched(note):
                call(networks.model, sample)


def _ids(sample: Any) -> torch.Tensor:
    """Return a sample's token ids, of shape (rows, tokens)."""
    ids = sample.get("input_ids") if isinstance(sample, Mapping) else sample
    if not isinstance(ids, torch.Tensor) or ids.is_floating_point() or ids.dim() != 2:
        raise DataError("an audit of neurons needs rows of token ids, or texts")
    return ids.cpu()
