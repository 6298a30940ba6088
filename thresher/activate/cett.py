"""CETT: neurons by what they add to the output, and a threshold by the error of dropping them."""

from __future__ import annotations

__all__ = ["CETT", "Truncation"]

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.options import check_number
from ..parts.activations.attached import Tally
from ..parts.activations.rules import over
from ..parts.activations.truncation import threshold_at_error, truncation_errors
from .networks import SeenNetwork, dropping, find_networks, see_networks


@dataclass(frozen=True)
class Truncation:
    """Which neurons are inactive: those that add less to the output than a threshold.

    Parameters
    ----------
    seen : tuple of SeenNetwork
        The feed-forward networks, with what calibration gave them.
    thresholds : tuple of Tensor of shape ()
        Of the norm of what a neuron adds, a network each.
    """

    seen: tuple[SeenNetwork, ...]
    thresholds: tuple[torch.Tensor, ...]

    @property
    def active(self) -> list[torch.Tensor]:
        """Masks of (tokens, neurons), a network each: neither small nor zero."""
        pairs = zip(self.seen, self.thresholds, strict=True)
        return [(seen.sizes >= bound) & (seen.rows != 0) for seen, bound in pairs]

    @property
    def sparsities(self) -> list[float]:
        """Share of inactive neurons on the calibration data, a network each."""
        return [1 - float(active.float().mean()) for active in self.active]

    @property
    def sparsity(self) -> float:
        """Share of inactive neurons over all networks."""
        return 1 - float(torch.cat([active.flatten() for active in self.active]).float().mean())

    @property
    def errors(self) -> list[float]:
        """Mean truncation error on the calibration data, a network each."""
        return [
            float(truncation_errors(s.rows, s.network.down.matrix(), s.sizes, float(bound)).mean())
            for s, bound in zip(self.seen, self.thresholds, strict=True)
        ]

    def applied(self) -> AbstractContextManager[dict[str, Tally]]:
        """Have the model drop inactive neurons while the context lasts, which counts them."""
        pairs = zip(self.seen, self.thresholds, strict=True)
        return dropping([(seen.site, over(bound, seen.norms)) for seen, bound in pairs])


@dataclass(frozen=True)
class CETT(Catalogued):
    """Find the neurons that can be dropped together for a given error of a network's output.

    A neuron's size is the norm of what it adds to the output, whatever the activation is, so that
    models without ReLU are found to be sparse as well.

    Parameters
    ----------
    error : float, default 0.2
        Norm of what is dropped over that of the output, the same for every network, in [0, 1]. The
        paper's own.

    Raises
    ------
    OptionError
        If `error` is out of range.

    References
    ----------
    Zhang et al., ReLU^2 Wins: Discovering Efficient Activation Functions for Sparse LLMs (2024),
    section 3.
    """

    error: float = 0.2
    card = Card(
        name="cett",
        title="ReLU^2 Wins: Discovering Efficient Activation Functions for Sparse LLMs",
        authors="Zhang et al.",
        year=2024,
        arxiv="2402.03804",
        summary="Find the neurons that can be dropped for a given error of a network's output.",
    )

    def __post_init__(self) -> None:
        check_number("error, of what is dropped relative to the output,", self.error, most=1)

    def measure(self, model: nn.Module, data: Any = None, **texts: Any) -> Truncation:
        """Find every network's threshold.

        Parameters
        ----------
        model : nn.Module
            A dense model, which stays so.
        data, **texts : optional
            See :func:`thresher.activate`; ``tokenizer``, ``windows`` and ``length`` are of texts.

        Returns
        -------
        Truncation

        Raises
        ------
        ThresherError
            If no feed-forward network is recognised, or the data cannot be used.
        """
        return self.of(see_networks(find_networks(model, data, **texts)))

    def of(self, seen: Sequence[SeenNetwork]) -> Truncation:
        """Find the thresholds of networks that were seen already."""
        bounds = [
            threshold_at_error(each.rows, each.network.down.matrix(), each.sizes, self.error)
            for each in seen
        ]
        return Truncation(tuple(seen), tuple(bounds))
