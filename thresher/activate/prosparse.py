"""ProSparse: ReLUs for other activations, a penalty that rises in stages, and a threshold."""

from __future__ import annotations

__all__ = ["ProSparse", "StagedPenalty"]

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import OptionError
from ..core.options import check_number, check_whole
from ..parts.activations.attached import OUTPUTS, attach
from ..parts.activations.selection import Threshold
from ..parts.schedules import Cosine
from .networks import Networks, check_relu, find_networks
from .penalty import HiddenPenalty, penalised
from .substitution import substitute


@dataclass(frozen=True)
class StagedPenalty:
    """The penalty of a step of training.

    Parameters
    ----------
    collected : HiddenPenalty
        What the model's passes gave, and the share of neurons that was active.
    factor_at : callable
        ``factor_at(step)`` returns what it is multiplied by.
    """

    collected: HiddenPenalty
    factor_at: Callable[[int], float]

    def __call__(self, step: int) -> torch.Tensor:
        """Return what to add to the loss at a step, counted from 0, after the model's pass."""
        return self.factor_at(step) * self.collected()


@dataclass(frozen=True)
class ProSparse(Catalogued):
    """Make a model with ReLUs of another one, and train it to have few active neurons.

    :meth:`substitute` exchanges the activations; within :meth:`penalised` the model trains on, with
    a factor on the mean magnitude of the hidden activations that is constant at first and then
    rises along half a sine from peak to peak; :meth:`shift` drops what is left below a threshold.

    Parameters
    ----------
    peaks : tuple of float, default (0.05, 0.2, 0.5)
        Factors at the ends of the stages, ascending; the first holds throughout the first stage.
        Those of the paper are of sums over a network's neurons in a model of 7 billion weights.
    steps : tuple of int, default (100, 400, 1000)
        Steps of training at which the stages end, ascending.
    threshold : float, default 0.01
        Of activations, which ReLU leaves and :meth:`shift` drops.

    Raises
    ------
    OptionError
        If there are not as many peaks as stages, or either does not ascend.

    References
    ----------
    Song et al., ProSparse: Introducing and Enhancing Intrinsic Activation Sparsity within Large
    Language Models (2024), section 3.

    Examples
    --------
    >>> method = ProSparse(peaks=(0.1, 0.3), steps=(10, 20))
    >>> [round(method.factor_at(step), 3) for step in (0, 10, 15, 20, 99)]
    [0.1, 0.1, 0.2, 0.3, 0.3]
    """

    peaks: Sequence[float] = (0.05, 0.2, 0.5)
    steps: Sequence[int] = (100, 400, 1000)
    threshold: float = 0.01
    card = Card(
        name="prosparse",
        title="ProSparse: Introducing and Enhancing Intrinsic Activation Sparsity within Large "
        "Language Models",
        authors="Song et al.",
        year=2024,
        arxiv="2402.13516",
        summary="Make a model with ReLUs of another, and penalise its active neurons in stages.",
    )

    def __post_init__(self) -> None:
        for peak in self.peaks:
            check_number("a peak of the factor", peak)
        for step in self.steps:
            check_whole("the last step of a stage", step)
        check_number("threshold, of activations,", self.threshold)
        peaks, steps = list(self.peaks), list(self.steps)
        if not peaks or len(peaks) != len(steps):
            raise OptionError(
                f"there are {len(peaks)} peaks and {len(steps)} stages; give each stage a peak"
            )
        if peaks != sorted(peaks) or steps != sorted(set(steps)):
            raise OptionError(f"peaks {peaks} and steps {steps} must ascend")

    def factor_at(self, step: int) -> float:
        """Return the factor of the penalty at a step of training, counted from 0."""
        stages = zip(self.peaks, self.peaks[1:], self.steps, self.steps[1:], strict=False)
        for low, high, start, end in stages:
            if start < step <= end:
                return Cosine(high, low)((step - start) / (end - start))
        return float(self.peaks[0] if step <= self.steps[0] else self.peaks[-1])

    def substitute(self, model: nn.Module, data: Any = None, **texts: Any) -> Networks:
        """Have the model's feed-forward networks activate by ReLU, in place.

        Parameters
        ----------
        model : nn.Module
            Whose activations are modules of their own, as those of transformers are.
        data, **texts : optional
            To find the networks by, see :func:`thresher.activate`; a sample is enough.

        Returns
        -------
        Networks
            For :meth:`penalised` and :meth:`shift`.

        Raises
        ------
        ThresherError
            If there is no network, or its activation cannot be exchanged.

        Notes
        -----
        Where an entry of the configuration of a model of transformers says so, such as
        ``hidden_act``, it becomes "relu", so that a saved model loads with ReLUs; a warning tells
        where none does.
        """
        return substitute(find_networks(model, data, **texts))

    @contextmanager
    def penalised(self, networks: Networks) -> Iterator[StagedPenalty]:
        """Collect the penalty while the context lasts.

        Yields
        ------
        StagedPenalty
            ``penalty(step)`` is added to the loss.

        Raises
        ------
        LayerError
            If a network has no ReLU.
        """
        check_relu(networks.networks, "the penalty on active neurons")
        with penalised(networks, torch.Tensor.abs) as collected:
            yield StagedPenalty(collected, self.factor_at)

    def shift(self, networks: Networks) -> None:
        """Have ReLUs let pass what reaches the threshold alone (FATReLU), for good.

        Raises
        ------
        LayerError
            If a network has no ReLU.
        """
        check_relu(networks.networks, "a threshold of activations")
        for network in networks.networks:
            layer = network.gate or network.up
            bound = torch.tensor(float(self.threshold))
            selection = Threshold(bound, activation="relu")
            attach(layer.name, layer.module, selection.to(layer.weight.device), OUTPUTS)
