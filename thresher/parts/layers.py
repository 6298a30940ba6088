"""Layers as matrices: which modules can be pruned, and how their weights multiply inputs."""

from __future__ import annotations

__all__ = ["Layer", "find_layers", "is_prunable"]

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..core.errors import LayerError, NumericalError


def is_prunable(module: nn.Module) -> bool:
    """Return whether a module is a Linear, a convolution or a Hugging Face ``Conv1D``."""
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or _is_hf_conv1d(
        module
    )


def _is_hf_conv1d(module: nn.Module) -> bool:
    # By name, because importing transformers takes seconds that plain modules need not pay.
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


@dataclass(frozen=True)
class Layer:
    """A prunable module seen as a matrix, rows being outputs and columns inputs.

    Parameters
    ----------
    name : str
        The module's path in the model.
    module : nn.Module
        A Linear, ConvNd, or Hugging Face ``Conv1D``.

    Notes
    -----
    A convolution is unfolded with input channels varying fastest, as NVIDIA's 2:4
    convolutions do, so that N:M groups lie along the channels; one with groups becomes a
    stack of matrices of shape (groups, rows, columns).
    """

    name: str
    module: nn.Module

    @property
    def weight(self) -> nn.Parameter:
        """The module's weight."""
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def groups(self) -> int:
        """Number of independent matrices."""
        groups = getattr(self.module, "groups", 1)
        assert isinstance(groups, int)
        return groups

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the matrix form, without making it."""
        stored = self.weight.shape
        if isinstance(self.module, nn.Linear):
            return tuple(stored)
        if _is_hf_conv1d(self.module):
            return (stored[1], stored[0])
        rows, columns = stored[0] // self.groups, math.prod(stored[1:])
        return (rows, columns) if self.groups == 1 else (self.groups, rows, columns)

    def matrix(self, tensor: torch.Tensor | None = None) -> torch.Tensor:
        """Return a tensor stored like the weight in matrix form, float32.

        Parameters
        ----------
        tensor : Tensor, optional
            Default: the weight itself; a gradient or mask of it works too.

        Returns
        -------
        Tensor of shape (rows, columns) or (groups, rows, columns)
            May share memory with `tensor` when that is float32.
        """
        value = (self.weight if tensor is None else tensor).detach().float()
        if isinstance(self.module, nn.Linear):
            return value
        if _is_hf_conv1d(self.module):
            return value.T
        return value.movedim(1, -1).reshape(self.shape)

    def store(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return a matrix in the weight's own shape and dtype."""
        stored = self.weight.shape
        if not isinstance(self.module, nn.Linear):
            if _is_hf_conv1d(self.module):
                matrix = matrix.T
            else:
                matrix = matrix.reshape(stored[0], *stored[2:], stored[1]).movedim(-1, 1)
        return matrix.to(self.weight.dtype).contiguous()

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows that the matrix multiplies when the module is given `x`.

        Parameters
        ----------
        x : Tensor
            The module's input.

        Returns
        -------
        Tensor of shape (tokens, columns) or (groups, tokens, columns)
            One row per token, or per output position of a convolution.
        """
        if isinstance(self.module, nn.Linear) or _is_hf_conv1d(self.module):
            return x.reshape(-1, x.shape[-1])
        assert isinstance(self.module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        return _unfold(self.module, x)

    def check_finite(self) -> None:
        """Raise if the weight holds NaN or infinite values.

        Raises
        ------
        NumericalError
            Naming the layer and how many values are affected.
        """
        bad = int((~torch.isfinite(self.weight)).sum())
        if bad:
            raise NumericalError(
                f"layer {self.name!r} has {bad} NaN or infinite weights of {self.weight.numel()}; "
                "repair or exclude the layer"
            )


def _unfold(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    dimensions = len(module.kernel_size)
    if x.dim() == dimensions + 1:
        x = x.unsqueeze(0)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = nn.functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    sizes = zip(module.kernel_size, module.stride, module.dilation, strict=True)
    for axis, (kernel, stride, dilation) in enumerate(sizes, start=2):
        x = x.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    # Now (batch, channels, *positions, *kernel); channels are split in groups and go last.
    x = x.reshape(x.shape[0], module.groups, -1, *x.shape[2:]).movedim(1, 0).movedim(2, -1)
    columns = math.prod(module.kernel_size) * module.in_channels // module.groups
    rows = x.reshape(module.groups, -1, columns)
    return rows[0] if module.groups == 1 else rows


def find_layers(
    model: nn.Module,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    prefix: str = "",
) -> list[Layer]:
    """Find the layers to prune, in the model's own order.

    Parameters
    ----------
    model : nn.Module
        Any module.
    include : sequence of str
        Shell patterns of names, such as ``"lm_head"``, to prune although they would stay
        dense: the output head of a Hugging Face model and layers whose weight is shared
        with an embedding.
    exclude : sequence of str
        Shell patterns of names to leave dense; they win over `include`.
    prefix : str
        Put before every name, when `model` is a part of a larger one.

    Returns
    -------
    list of Layer
        Embeddings are never among them.

    Raises
    ------
    LayerError
        If there is nothing to prune.
    """
    dense = _kept_dense(model)
    found = []
    for local, module in model.named_modules():
        name = f"{prefix}.{local}".strip(".")
        if not is_prunable(module) or any(fnmatch.fnmatch(name, p) for p in exclude):
            continue
        if id(module) in dense and not any(fnmatch.fnmatch(name, p) for p in include):
            continue
        found.append(Layer(name, module))
    if not found:
        raise LayerError(
            f"{type(model).__name__} has no layer to prune: Linear, convolution and Hugging Face "
            "Conv1D layers can be, outside embeddings and the output head"
            + (f" and outside exclude={list(exclude)}" if exclude else "")
        )
    return found


def _kept_dense(model: nn.Module) -> set[int]:
    """Identify the output head, and layers that share an embedding's weight."""
    kept = set()
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        kept.add(id(head))
    shared = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    kept |= {id(m) for m in model.modules() if is_prunable(m) and id(m.weight) in shared}
    return kept
