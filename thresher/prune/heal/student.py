"""The weights of a pruned model that healing trains, held in float32 meanwhile."""

from __future__ import annotations

__all__ = ["Student", "check_pruned", "trained_parameters"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import torch
from torch import nn

from ...core.errors import LayerError
from ...parts.coverage import cover
from ...parts.kept_adam import KeptAdamW
from ...run.measure.modes import evaluating
from ...stream.precision import Precision, widened

_BETAS = (0.9, 0.95)
_MAX_NORM = 1.0


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what healing trains: the layers that pruning covers, norms and biases.

    Embeddings, the output head and whatever else stays dense on purpose stay as they are.
    """
    layers = {layer.parameter for layer in cover(model).layers}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name in layers or (parameter.dim() < 2 and parameter.is_floating_point())
    }


def check_pruned(model: nn.Module, teacher: nn.Module) -> None:
    """Raise if there is nothing to heal.

    Raises
    ------
    LayerError
        If none of the layers that pruning covers has a zero, and they are no smaller than the
        teacher's.
    """
    layers, others = ([layer.weight for layer in cover(each).layers] for each in (model, teacher))
    if any(not bool(weight.all()) for weight in layers):
        return
    sizes = [sum(weight.numel() for weight in weights) for weights in (layers, others)]
    if sizes[0] >= sizes[1]:
        raise LayerError(
            f"the {len(layers)} layers of {type(model).__name__} that could be pruned have no "
            f"zeros, and {sizes[0]} weights where the teacher's have {sizes[1]}, so that there is "
            "nothing to heal; prune the model first"
        )


class Student:
    """A pruned model in training; made by :meth:`of`, for as long as its context lasts.

    Parameters
    ----------
    model : nn.Module
        The model, in float32.
    dtypes : dict of str to torch.dtype
        What the trained parameters are stored in.
    optimizer : KeptAdamW
        Of the trained parameters, in the order of `dtypes`.
    """

    def __init__(
        self, model: nn.Module, dtypes: dict[str, torch.dtype], optimizer: KeptAdamW
    ) -> None:
        self.model, self.dtypes, self.optimizer = model, dtypes, optimizer
        self.parameters = {name: model.get_parameter(name) for name in dtypes}

    @classmethod
    @contextmanager
    def of(cls, model: nn.Module) -> Iterator[Self]:
        """Have a model in training; afterwards it is in its own dtypes and as trainable as before.

        It runs in evaluation mode, without dropout, and half precision is widened meanwhile.
        """
        trained = trained_parameters(model)
        dtypes = {name: parameter.dtype for name, parameter in trained.items()}
        trainable = [(p, p.requires_grad) for p in model.parameters()]
        with evaluating(model), widened(model, Precision(torch.bfloat16, torch.float32)):
            model.requires_grad_(False)
            for parameter in trained.values():
                parameter.data = parameter.data.contiguous()
                parameter.requires_grad_(True)
            optimizer = KeptAdamW(
                trained.values(), lr=0.0, betas=_BETAS, weight_decay=0.0, max_norm=_MAX_NORM
            )
            try:
                yield cls(model, dtypes, optimizer)
            finally:
                optimizer.close()
                for parameter, before in trainable:
                    parameter.requires_grad_(before)

    def values(self, *, rounded: bool = False) -> dict[str, torch.Tensor]:
        """Return the kept weights by name, each (kept,), as they are stored if `rounded`."""
        kept = self.optimizer.kept
        found = {name: kept[p].gather(p) for name, p in self.parameters.items()}
        return {n: v.to(self.dtypes[n]) for n, v in found.items()} if rounded else found

    def set(self, values: Mapping[str, torch.Tensor]) -> None:
        """Set the kept weights to what :meth:`values` returned."""
        for name, parameter in self.parameters.items():
            self.optimizer.kept[parameter].fill(parameter, values[name].to(parameter.device))

    @contextmanager
    def rounded(self) -> Iterator[dict[str, torch.Tensor]]:
        """Have the weights as they would be stored while the context lasts; yields them."""
        exact = self.values()
        stored = self.values(rounded=True)
        self.set(stored)
        try:
            yield stored
        finally:
            self.set(exact)

    def restart(self, values: Mapping[str, torch.Tensor]) -> None:
        """Go back to some weights, without moments and gradients."""
        self.set(values)
        self.optimizer.state.clear()
        self.optimizer.zero_grad()

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Return weights and moments by name, to save."""
        found = {f"weight.{name}": value for name, value in self.values().items()}
        for name, parameter in self.parameters.items():
            for moment, value in self.optimizer.state[parameter].items():
                found[f"{moment}.{name}"] = value
        return {name: value.cpu() for name, value in found.items()}

    def restore(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Go on with what :meth:`snapshot` returned."""
        self.restart({name: saved[f"weight.{name}"] for name in self.parameters})
        for name, parameter in self.parameters.items():
            if f"step.{name}" not in saved:
                continue  # no gradient has reached it yet
            moments = ("exp_avg", "exp_avg_sq")
            state = {m: saved[f"{m}.{name}"].to(parameter.device) for m in moments}
            self.optimizer.state[parameter] = {"step": saved[f"step.{name}"], **state}
