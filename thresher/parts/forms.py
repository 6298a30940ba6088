"""Forms: how a parameter is a matrix, and which rows that matrix multiplies."""

from __future__ import annotations

__all__ = [
    "Columns",
    "Form",
    "Kernel",
    "Rows",
    "TransposedKernel",
    "form_of",
    "multiplies_its_own_way",
    "unfold",
]

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedConvolution = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


class Form(ABC):
    """How a stored weight is seen as a matrix whose rows are outputs and columns inputs."""

    @abstractmethod
    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the matrix's shape for a weight stored in shape `stored`."""

    @abstractmethod
    def matrix(self, stored: torch.Tensor) -> torch.Tensor:
        """Return the matrix, shape (rows, columns) or (groups, rows, columns)."""

    @abstractmethod
    def store(self, matrix: torch.Tensor, stored: tuple[int, ...]) -> torch.Tensor:
        """Undo :meth:`matrix` for a weight stored in shape `stored`."""

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows that the matrix multiplies when its module is given `x`.

        Parameters
        ----------
        x : Tensor
            The module's input.

        Returns
        -------
        Tensor of shape (tokens, columns) or (groups, tokens, columns)
        """
        return x.reshape(-1, x.shape[-1])


@dataclass(frozen=True)
class Rows(Form):
    """Stored as it multiplies, (outputs, inputs): Linear layers, projections, experts."""

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the stored shape."""
        return tuple(stored)

    def matrix(self, stored: torch.Tensor) -> torch.Tensor:
        """Return the weight itself."""
        return stored

    def store(self, matrix: torch.Tensor, stored: tuple[int, ...]) -> torch.Tensor:
        """Return the matrix itself."""
        return matrix


@dataclass(frozen=True)
class Columns(Form):
    """Stored the other way round, (inputs, outputs): Hugging Face ``Conv1D``, some experts."""

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the stored shape, turned."""
        return (stored[1], stored[0])

    def matrix(self, stored: torch.Tensor) -> torch.Tensor:
        """Return the weight, turned."""
        return stored.mT

    def store(self, matrix: torch.Tensor, stored: tuple[int, ...]) -> torch.Tensor:
        """Return the matrix, turned."""
        return matrix.mT


@dataclass(frozen=True)
class Kernel(Form):
    """A convolution's, unfolded with input channels varying fastest.

    NVIDIA's 2:4 convolutions order columns so, and N:M groups then lie along the channels. A
    convolution with groups is a stack of matrices of shape (groups, rows, columns).

    Parameters
    ----------
    module : Conv1d, Conv2d or Conv3d
        Its padding, stride and dilation say which inputs a row meets.
    """

    module: Convolution

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return (outputs, inputs x kernel), with the groups before them."""
        groups = self.module.groups
        rows, columns = stored[0] // groups, math.prod(stored[1:])
        return (rows, columns) if groups == 1 else (groups, rows, columns)

    def matrix(self, stored: torch.Tensor) -> torch.Tensor:
        """Return the unfolded kernel."""
        return stored.movedim(1, -1).reshape(self.shape(tuple(stored.shape)))

    def store(self, matrix: torch.Tensor, stored: tuple[int, ...]) -> torch.Tensor:
        """Fold the kernel again."""
        return matrix.reshape(stored[0], *stored[2:], stored[1]).movedim(-1, 1)

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return a row of inputs for every output position."""
        module = self.module
        if x.dim() == len(module.kernel_size) + 1:
            x = x.unsqueeze(0)
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = nn.functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)
        return unfold(x, module.kernel_size, module.stride, module.dilation, module.groups)


@dataclass(frozen=True)
class TransposedKernel(Form):
    """A transposed convolution's: every input position spreads over (outputs x kernel) rows.

    Parameters
    ----------
    module : ConvTranspose1d, ConvTranspose2d or ConvTranspose3d
    """

    module: TransposedConvolution

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return (outputs x kernel, inputs), with the groups before them."""
        groups = self.module.groups
        rows, columns = math.prod(stored[1:]), stored[0] // groups
        return (rows, columns) if groups == 1 else (groups, rows, columns)

    def matrix(self, stored: torch.Tensor) -> torch.Tensor:
        """Return the kernel with the inputs last."""
        shape = self.shape(tuple(stored.shape))
        return stored.reshape(*shape[:-2], shape[-1], shape[-2]).mT

    def store(self, matrix: torch.Tensor, stored: tuple[int, ...]) -> torch.Tensor:
        """Put the inputs first again."""
        return matrix.mT.reshape(stored)

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return a row of channels for every input position."""
        spatial = len(self.module.kernel_size)
        if x.dim() == spatial + 1:
            x = x.unsqueeze(0)
        groups = self.module.groups
        x = x.reshape(x.shape[0], groups, -1, *x.shape[2:]).movedim(1, 0).movedim(2, -1)
        rows = x.reshape(groups, -1, x.shape[-1])
        return rows[0] if groups == 1 else rows


def form_of(module: nn.Module) -> Form | None:
    """Return the form of a module's ``weight``; None where a module has no known one.

    Parameters
    ----------
    module : nn.Module
        A Linear, a convolution, a transposed convolution or a Hugging Face ``Conv1D``.
    """
    if isinstance(module, nn.Linear):
        return Rows()
    if isinstance(module, Convolution):
        return Kernel(module)
    if isinstance(module, TransposedConvolution):
        return TransposedKernel(module)
    # By name, because importing transformers takes seconds that plain modules need not pay.
    kind = type(module)
    if kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils":
        return Columns()
    return None


def multiplies_its_own_way(module: nn.Module) -> bool:
    """Return whether a layer is called by other code than that of the class it derives from.

    What such a layer is given need not be what its weight multiplies, and what it multiplies by
    need not be its weight: a convolution may pad, or standardise its kernel.

    Parameters
    ----------
    module : nn.Module
        A layer of which :func:`form_of` gives a form.
    """
    kinds = type(module).__mro__
    known = next(k for k in kinds if k.__module__.startswith(("torch.nn.", "transformers.pytorch")))
    names = ("forward", "_conv_forward", "__call__")
    if any(getattr(kinds[0], name, None) is not getattr(known, name, None) for name in names):
        return True
    # accelerate moves tensors in a forward of the instance, and calls the class's.
    return any(name in vars(module) for name in names) and not hasattr(module, "_hf_hook")


def unfold(
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """Return the rows that a convolution multiplies, of an input that is padded already.

    Parameters
    ----------
    x : Tensor of shape (batch, channels, ...)
        The input, its positions along one axis or more.
    kernel, stride, dilation : sequence of int
        Along every spatial axis.
    groups : int
        Groups of channels.

    Returns
    -------
    Tensor of shape (rows, columns) or (groups, rows, columns)
        A row for every output position, with the channels varying fastest.
    """
    columns = math.prod(kernel) * x.shape[1] // groups
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        x = x.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
    # Now (batch, channels, *positions, *kernel); channels are split in groups and go last.
    x = x.reshape(x.shape[0], groups, -1, *x.shape[2:]).movedim(1, 0).movedim(2, -1)
    rows = x.reshape(groups, -1, columns)
    return rows[0] if groups == 1 else rows
