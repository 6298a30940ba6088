"""Layers whose weight is stored in a layout and never unpacked."""

from __future__ import annotations

__all__ = ["PackedLayer", "PackedLinear"]

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..layouts.base import Layout


class PackedLayer(nn.Module):
    """A layer that holds a packed weight and no dense copy of it.

    Its state dict has one entry per buffer of the layout, named ``weight_<buffer>``, the
    ``weight_shape`` and ``bias``: the tensors of the sparse checkpoint. Gradients reach the
    input, not the weight.

    Parameters
    ----------
    layout : Layout
        The packed weight, a matrix whose rows are outputs.
    bias : Tensor, optional
        Shape (rows,).
    """

    def __init__(self, layout: Layout, bias: Tensor | None = None) -> None:
        super().__init__()
        self.layout = layout
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        return f"{self.layout!r}, bias={self.bias is not None}"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the dense weight, which a layout has as a matrix."""
        return self.layout.shape

    def float_bias(self) -> Tensor | None:
        """Return the bias as kernels take it."""
        bias = self.bias
        # Converting float32 to float32 does nothing, and not for nothing.
        return bias if bias is None or bias.dtype == torch.float32 else bias.float()

    def _rebind(self, tensors: dict[str, Tensor]) -> None:
        old = self.layout
        self.layout = type(old).from_tensors(tensors, old.shape, old.settings)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._rebind({name: fn(tensor) for name, tensor in self.layout.tensors().items()})
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        bias = None if self.bias is None else self.bias.detach().clone()
        copied = self._with(copy.deepcopy(self.layout, memo), bias)
        return copied.train(self.training)

    def _with(self, layout: Layout, bias: Tensor | None) -> Self:
        """Return a layer like this one with another weight and bias."""
        return type(self)(layout, bias)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight_shape"] = torch.tensor(self.weight_shape)
        for name, tensor in self.layout.tensors().items():
            destination[f"{prefix}weight_{name}"] = tensor

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        start = f"{prefix}weight_"
        found = {k[len(start) :]: v for k, v in state_dict.items() if k.startswith(start)}
        expected = {"shape", *self.layout.tensors()}
        absent = expected - found.keys()
        missing_keys.extend(start + name for name in sorted(absent))
        if not absent:
            shape = tuple(found.pop("shape").tolist())
            if shape == self.weight_shape:
                # Bound anew rather than copied into: a layout's checks run when it is bound.
                device = self.layout.device
                self._rebind({k: v.to(device, copy=True) for k, v in found.items()})
            else:
                error_msgs.append(f"{start}shape is {shape}, expected {self.weight_shape}")
        rest = {k: v for k, v in state_dict.items() if not k.startswith(start)}
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


class PackedLinear(PackedLayer):
    """A stand-in for ``torch.nn.Linear`` that multiplies a packed weight.

    Parameters
    ----------
    layout : Layout
        The packed weight, (out_features, in_features).
    bias : Tensor, optional
        Shape (out_features,).
    """

    @classmethod
    def from_linear(cls, linear: nn.Linear, layout: type[Layout]) -> Self:
        """Pack the weight of a dense layer."""
        weight = linear.weight.detach()
        return cls(layout.from_dense(weight.cpu()).to(weight.device), linear.bias)

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return self.layout.shape[0]

    @property
    def in_features(self) -> int:
        """Columns of the weight."""
        return self.layout.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ W.T + bias``; `x` has the dtype of the weight."""
        return self.layout.matmul(x, self.float_bias())
