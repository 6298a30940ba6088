"""Mixtures of experts: where they are, who is chosen, and what an expert is worth."""

from __future__ import annotations

__all__ = ["ExpertScore", "GateWeight", "HitRate", "Mixture", "Routing", "find_mixtures"]

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ..core.errors import LayerError
from .layers import Layer


@dataclass(frozen=True)
class Mixture:
    """A router and the experts among which it chooses.

    Parameters
    ----------
    name : str
        Path of the module that holds the matrices of the experts.
    count : int
        Number of experts.
    router : str
        Path of the parameter whose rows choose, of shape (experts, width).
    members : tuple of str
        Paths of all parameters and buffers that have an index for each expert, their first.
    """

    name: str
    count: int
    router: str
    members: tuple[str, ...] = field(repr=False)


def find_mixtures(model: nn.Module, layers: Sequence[Layer]) -> list[Mixture]:
    """Return the mixtures whose experts are stacked in one parameter.

    Parameters
    ----------
    model : nn.Module
    layers : sequence of Layer
        The model's layers, those of experts among them.

    Raises
    ------
    LayerError
        If it is not clear which parameter chooses among some experts.
    """
    holders: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.part is not None and getattr(layer.module, layer.attribute).dim() == 3:
            holders.setdefault(layer.parameter.rpartition(".")[0], []).append(layer)
    return [_mixture(model, name, found) for name, found in holders.items()]


def _mixture(model: nn.Module, name: str, layers: Sequence[Layer]) -> Mixture:
    count = len(getattr(layers[0].module, layers[0].attribute))
    # What all experts are given is as wide as what the router is given.
    widths = {layer.shape[-1] for layer in layers} | {layer.shape[-2] for layer in layers}
    inside = [path for path, tensor in _stored(model, name) if len(tensor) == count]
    block = name.rpartition(".")[0]
    beside = {
        path: tensor
        for path, tensor in _stored(model, block)
        if not path.startswith(f"{name}.") and tensor.dim() <= 2 and len(tensor) == count
    }
    routers = [
        path for path, tensor in beside.items() if tensor.dim() == 2 and tensor.shape[1] in widths
    ]
    if len(routers) != 1:
        said = ", ".join(routers) or "none"
        raise LayerError(
            f"it is not clear what chooses among the {count} experts of {name!r}: of the "
            f"parameters beside them {said} could; leave them whole"
        )
    kept = [path for path, tensor in beside.items() if tensor.dim() == 1]
    return Mixture(name, count, routers[0], (*inside, routers[0], *kept))


def _stored(model: nn.Module, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    module = model.get_submodule(path)
    for found in (module.named_parameters(), module.named_buffers()):
        for name, tensor in found:
            if tensor.dim():
                yield f"{path}.{name}".strip("."), tensor


@dataclass
class Routing:
    """How often experts were chosen, and with which weight.

    Parameters
    ----------
    count : int
        Number of experts.

    Attributes
    ----------
    tokens : int
        That were shared out.
    hits : Tensor of float64, shape (experts,)
        Tokens that chose an expert.
    weights : Tensor of float64, shape (experts,)
        Sum of the weights with which they did.
    together : Tensor of float64, shape (experts, experts)
        Tokens that chose both of two experts.
    chosen : int
        Experts that each token chooses.
    """

    count: int

    def __post_init__(self) -> None:
        self.tokens = self.chosen = 0
        self.hits = torch.zeros(self.count, dtype=torch.float64)
        self.weights = torch.zeros(self.count, dtype=torch.float64)
        self.together = torch.zeros(self.count, self.count, dtype=torch.float64)

    def update(self, indices: torch.Tensor, weights: torch.Tensor) -> None:
        """Take in what some tokens chose.

        Parameters
        ----------
        indices : Tensor of int64, shape (tokens, chosen)
        weights : Tensor of the same shape
        """
        indices, weights = indices.cpu(), weights.double().cpu()
        picked = torch.zeros(len(indices), self.count, dtype=torch.float64)
        self.weights += picked.scatter_add(1, indices, weights).sum(0)
        picked.scatter_(1, indices, 1.0)
        self.tokens += len(indices)
        self.chosen = indices.shape[1]
        self.hits += picked.sum(0)
        self.together += picked.mT @ picked


class ExpertScore(ABC):
    """Base class of what an expert is worth to the tokens that were seen."""

    @abstractmethod
    def __call__(self, routing: Routing) -> torch.Tensor:
        """Score every expert, larger meaning keep; a Tensor of shape (experts,)."""


@dataclass(frozen=True)
class HitRate(ExpertScore):
    """The share of tokens that choose an expert."""

    def __call__(self, routing: Routing) -> torch.Tensor:
        """Divide hits by tokens."""
        return routing.hits / max(1, routing.tokens)


@dataclass(frozen=True)
class GateWeight(ExpertScore):
    """The weight that an expert is given, on average over all tokens, zero where not chosen.

    References
    ----------
    Chen et al., Task-Specific Expert Pruning for Sparse Mixture-of-Experts (2022), section 3, the
    alpha score.
    """

    def __call__(self, routing: Routing) -> torch.Tensor:
        """Divide weights by tokens."""
        return routing.weights / max(1, routing.tokens)
