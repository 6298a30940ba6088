"""Watching whom routers choose while a model runs."""

from __future__ import annotations

__all__ = ["collect_routing"]

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from ..core.errors import LayerError
from ..parts.experts import Mixture, Routing
from ..parts.groups.trace import tensors_of
from .calls import Forward, forward_within
from .passes import calibrating, call


def collect_routing(
    model: nn.Module, mixtures: Sequence[Mixture], samples: Sequence[Any]
) -> dict[str, Routing]:
    """Return whom the tokens of samples choose, by mixture.

    Parameters
    ----------
    model : nn.Module
    mixtures : sequence of Mixture
    samples : sequence
        Inputs of the model.

    Raises
    ------
    LayerError
        If experts are not told who is chosen, by a whole number and a weight for each choice.
    """
    found = {mixture.name: Routing(mixture.count) for mixture in mixtures}
    with ExitStack() as stack:
        stack.enter_context(calibrating(model))
        for mixture in mixtures:
            experts = model.get_submodule(mixture.name)
            wrap = _watching(mixture, found[mixture.name])
            stack.enter_context(forward_within(experts, wrap))
        for sample in samples:
            call(model, sample)
    return found


def _watching(mixture: Mixture, routing: Routing) -> Callable[[Forward], Forward]:
    def wrap(forward: Forward) -> Forward:
        def watched(*args: Any, **keywords: Any) -> Any:
            routing.update(*_choice(mixture, tensors_of([args, keywords])))
            return forward(*args, **keywords)

        return watched

    return wrap


def _choice(mixture: Mixture, given: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tensors of indices and of weights that experts are called with."""
    for indices in given:
        if indices.is_floating_point() or indices.dim() != 2 or not indices.numel():
            continue
        inside = int(indices.min()) >= 0 and int(indices.max()) < mixture.count
        for weights in given:
            if inside and weights.is_floating_point() and weights.shape == indices.shape:
                return indices, weights
    raise LayerError(
        f"the experts of {mixture.name!r} are not called with whom each token chooses, so that "
        "it cannot be seen who is idle; leave them whole"
    )
