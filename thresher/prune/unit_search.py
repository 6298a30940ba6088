"""What a method may remove of a model in memory, and what that does to the model's loss."""

from __future__ import annotations

__all__ = ["Attention", "Candidates", "find_attentions", "is_heads"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..core.errors import DataError
from ..parts.groups.find import Coupled, Group
from ..parts.groups.shrink import silenced
from ..parts.layers import Layer
from ..parts.spreads import Ranked, Removed
from ..stream.gradients import Loss
from ..stream.passes import settled
from ..stream.stream import Stream


@dataclass(frozen=True)
class Attention:
    """The layers of an attention, which gives nothing where their weights are zero.

    Parameters
    ----------
    name : str
        Of the layer that gives its output.
    layers : tuple of Layer
    """

    name: str
    layers: tuple[Layer, ...] = field(repr=False)

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(layer.weight.numel() for layer in self.layers)

    @torch.no_grad()
    def silence(self) -> None:
        """Set its weights to zero, in place, and the biases of their modules."""
        for tensor in self._tensors():
            tensor.zero_()

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Have its weights zero while the context lasts."""
        before = [tensor.clone() for tensor in self._tensors()]
        self.silence()
        try:
            yield
        finally:
            for tensor, values in zip(self._tensors(), before, strict=True):
                tensor.copy_(values)

    def _tensors(self) -> list[torch.Tensor]:
        owners = {id(layer.module): layer.module for layer in self.layers}
        biases = [getattr(module, "bias", None) for module in owners.values()]
        weights = [layer.weight.data for layer in self.layers]
        return weights + [bias.data for bias in biases if isinstance(bias, torch.Tensor)]


def find_attentions(
    coupled: Coupled, groups: Sequence[Group], layers: Mapping[str, Sequence[Layer]]
) -> list[Attention]:
    """Return the attentions that have heads among some groups.

    Parameters
    ----------
    coupled : Coupled
    groups : sequence of Group
        Those to look in.
    layers : mapping of str to sequence of Layer
        By parameter, the layers that may be pruned.
    """
    by_output: dict[str, dict[str, None]] = {}
    for group in groups:
        if is_heads(group) and _attends(group, coupled.trace.attending):
            for output in group.consumers:
                found = by_output.setdefault(output.parameter, {})
                found |= dict.fromkeys(m.parameter for m in group.members)
    return [
        Attention(layers[output][0].name, tuple(la for p in found for la in layers.get(p, ())))
        for output, found in by_output.items()
        if output in layers
    ]


def is_heads(group: Group) -> bool:
    """Whether the units of a group are heads: several columns of a layer each."""
    return any(member.indices.shape[1] > 1 for member in group.consumers)


def _attends(group: Group, attending: set[str]) -> bool:
    owners = {member.parameter.rpartition(".")[0] for member in group.producers}
    return any(owner in attending or owner.rpartition(".")[0] in attending for owner in owners)


@dataclass(frozen=True)
class Candidates:
    """What a method may remove, and what becomes of the model without it.

    Parameters
    ----------
    model : nn.Module
    coupled : Coupled
        Its groups.
    layers : mapping of str to list of Layer
        By parameter, the layers that may be pruned.
    groups : sequence of Ranked
        Groups with the costs of their units.
    attentions : sequence of Attention
        Those that can go as a whole.
    samples : sequence
        Inputs that the loss is taken on.
    lossy : callable
        ``lossy(model, sample)`` returns a scalar tensor.
    stream : callable
        ``stream(layers)`` sends the samples through the model, to visit some layers.
    """

    model: nn.Module
    coupled: Coupled
    layers: Mapping[str, Sequence[Layer]]
    groups: Sequence[Ranked]
    attentions: Sequence[Attention]
    samples: Sequence[Any]
    lossy: Loss
    stream: Callable[[Sequence[Layer]], Stream]

    def weights(self, removed: Removed) -> int:
        """Return how many weights of the layers stay without some units."""
        return self.coupled.weights(self.layers, removed)

    @torch.no_grad()
    def loss(self, removed: Removed, attentions: Sequence[Attention], most: int) -> float:
        """Return the mean loss without some units and some attentions.

        Parameters
        ----------
        removed : dict of str to list of int
            Units, by group.
        attentions : sequence of Attention
        most : int
            How many samples to take the loss of, the first ones.

        Raises
        ------
        DataError
            If there is no sample, or the loss is NaN.
        """
        with ExitStack() as stack:
            stack.enter_context(silenced(self.model, self.coupled.kept(removed)))
            for attention in attentions:
                stack.enter_context(attention.silenced())
            return self.mean_loss(range(len(self.samples))[:most])

    @torch.no_grad()
    def mean_loss(self, indices: Sequence[int]) -> float:
        """Return the mean loss of the model as it is, on the samples of some indices.

        Raises
        ------
        DataError
            If there is no sample, or the loss is NaN.
        """
        if not indices:
            raise DataError("the search needs calibration data to take the loss of: pass data=")
        with settled(self.model):
            total = sum(float(self.lossy(self.model, self.samples[index])) for index in indices)
        if total != total:
            raise DataError("the loss on the calibration data is NaN; check the data and the model")
        return total / len(indices)
