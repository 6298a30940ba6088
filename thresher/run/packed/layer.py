"""What layers that hold a packed weight have in common."""

from __future__ import annotations

__all__ = ["PackedLayer"]

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...core.errors import LayerError
from ..layouts.base import Layout
from ..layouts.handles import in_graph
from .weight import WeightOnDemand, refusal

#: What layouts store the numbers of a weight in.
STORED = (torch.float32, torch.bfloat16)


class PackedLayer(nn.Module):
    """A layer that holds a packed weight and no dense copy of it.

    Its state dict has one entry per buffer of the layout, named ``weight_<buffer>``, the
    ``weight_shape`` and ``bias``: the tensors of the sparse checkpoint. Gradients reach the
    input, not the weight. Layers are copied, pickled, compiled and traced as dense ones are; a
    traced or exported graph needs them alive in its process.

    Parameters
    ----------
    layout : Layout
        The packed weight, a matrix whose rows are outputs.
    bias : Tensor, optional
        Shape (rows,).

    Attributes
    ----------
    outer : torch.dtype or None
        Of inputs and outputs where it is not the weight's, after ``half()`` or ``double()``, which
        no layout stores. Products are then computed in float32 with the packed weight, in float64
        with a dense copy of it.
    """

    def __init__(self, layout: Layout, bias: Tensor | None = None) -> None:
        super().__init__()
        self.layout = layout
        held = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.register_parameter("bias", held)
        self.outer: torch.dtype | None = None

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        return f"{self.layout!r}, bias={self.bias is not None}"

    @property
    def weight(self) -> Tensor:
        """The dense weight, a copy that is made when something computes with it.

        For code that reads a layer's weight; its own product does not. Writing to it raises
        LayerError, and so does setting it.
        """
        if in_graph():
            return self.dense_weight()
        layout = self.layout
        dtype = self.outer or layout.dtype
        return WeightOnDemand(self.dense_weight, self.weight_shape, dtype, layout.device)

    def dense_weight(self) -> Tensor:
        """Return the weight as the dense layer had it."""
        return self.layout.to_dense().to(self.outer or self.layout.dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight":
            raise LayerError(refusal)
        super().__setattr__(name, value)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the dense weight, which a layout has as a matrix."""
        return self.layout.shape

    def float_bias(self) -> Tensor | None:
        """Return the bias as kernels take it."""
        # Looking an attribute of a module up, and converting float32 to float32, are felt beside
        # a small product.
        bias = self._parameters["bias"]
        return bias if bias is None or bias.dtype == torch.float32 else bias.float()

    def _rebind(self, tensors: dict[str, Tensor]) -> None:
        old = self.layout
        self.layout = type(old).from_tensors(tensors, old.shape, old.settings)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        held = self.layout.tensors()
        dtypes = {fn(t.new_empty(0)).dtype for t in held.values() if t.is_floating_point()}
        outer = next(iter(dtypes - set(STORED)), None)
        kept = torch.float32 if outer else None
        tensors = {
            name: fn(tensor).to(kept) if kept and tensor.is_floating_point() else fn(tensor)
            for name, tensor in held.items()
        }
        # Nothing was changed yet where this fails.
        self._rebind(tensors)
        self.outer = outer
        return super()._apply(fn, recurse)

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
                self._rebind({name: self._taken(tensor) for name, tensor in found.items()})
            else:
                error_msgs.append(f"{start}shape is {shape}, expected {self.weight_shape}")
        rest = {k: v for k, v in state_dict.items() if not k.startswith(start)}
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _taken(self, tensor: Tensor) -> Tensor:
        """Return a loaded buffer as this layer keeps it: a copy, on its device, of its dtype."""
        dtype = self.layout.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self.layout.device, dtype, copy=True)
