"""DEFT: fine-tuning with a loss on how many neurons are active."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.options import check_number
from .networks import Networks, find_networks
from .penalty import HiddenPenalty, penalised


@dataclass(frozen=True)
class DEFT(Catalogued):
    """Add the density of activations to the loss of fine-tuning, whatever parameters it trains.

    The density is smooth: an activation `a` counts as ``tanh(sharpness * |a|)``, which is nearly 1
    where it is not zero.

    Parameters
    ----------
    weight : float, default 1.0
        Of the density in the loss.
    sharpness : float, default 20.0
        How soon an activation counts as active: at ``1 / sharpness`` it does by three quarters.

    Raises
    ------
    OptionError
        If a value is out of range.

    Notes
    -----
    The paper trains adapters, LoRA or prompts with the model itself frozen: put these in within the
    context, when the networks have been found. Magnitudes take the place of the activations
    themselves, so that those of GELU and SiLU, which may be negative, count as well.

    References
    ----------
    Bharat Runwal, Tejaswini Pedapati, Pin-Yu Chen, From PEFT to DEFT: Parameter Efficient
    Finetuning for Reducing Activation Density in Transformers (2024), section 3.
    """

    weight: float = 1.0
    sharpness: float = 20.0
    card = Card(
        name="deft",
        title="From PEFT to DEFT: Parameter Efficient Finetuning for Reducing Activation Density "
        "in Transformers",
        authors="Bharat Runwal, Tejaswini Pedapati, Pin-Yu Chen",
        year=2024,
        arxiv="2402.01911",
        summary="Fine-tune few parameters with a loss on how many neurons are active.",
    )

    def __post_init__(self) -> None:
        check_number("weight, of the density in the loss,", self.weight)
        check_number("sharpness", self.sharpness, above=0)

    def density(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return how far every activation counts towards the loss."""
        return self.weight * torch.tanh(self.sharpness * hidden.abs())

    @contextmanager
    def penalised(
        self, model: nn.Module, data: Any = None, **texts: Any
    ) -> Iterator[HiddenPenalty]:
        """Collect the density while the context lasts.

        Parameters
        ----------
        model : nn.Module
            What trains.
        data, **texts : optional
            To find its feed-forward networks by, see :func:`thresher.activate`; a sample is enough.

        Yields
        ------
        HiddenPenalty
            To be called after every pass, and its value added to the loss.

        Raises
        ------
        ThresherError
            If there is no feed-forward network, or the data cannot be used.
        """
        with self.penalised_networks(find_networks(model, data, **texts)) as penalty:
            yield penalty

    def penalised_networks(self, networks: Networks) -> AbstractContextManager[HiddenPenalty]:
        """Return the context of :meth:`penalised` for networks that were found before."""
        return penalised(networks, self.density)
