"""Training with weights that are sparse in memory and in arithmetic, not only in a mask."""

from __future__ import annotations

__all__ = ["LinearProducts", "SparseLinear"]

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...core.card import Card, Catalogued
from ...core.errors import LayerError
from ..layouts.support import Rearranged, Support
from .sparse_layer import Products, SparseLayer


class LinearProducts(Products):
    """Products with rows of inputs, (batch, columns)."""

    def __init__(self, support: Support) -> None:
        super().__init__(support)
        self._transposed = Rearranged(support.columns, support.rows, support.shape[::-1])

    def forward(self, matrix: Any, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x @ W.T + bias``."""
        return _product(matrix, x, self.support.shape[0], bias)

    def input_gradient(self, values: Tensor, grad: Tensor, shape: torch.Size) -> Tensor:
        """Return ``grad @ W``."""
        return _product(self._transposed.bind(values), grad, self.support.shape[1])

    def accumulate(self, matrix: Any, x: Tensor, grad: Tensor, gradient: Tensor) -> None:
        """Write ``grad.T @ x`` at the survivors."""
        matrix.value_gradient(
            x.data_ptr(), grad.data_ptr(), x.shape[0], gradient.data_ptr(), torch.get_num_threads()
        )

    def bias_gradient(self, grad: Tensor) -> Tensor:
        """Sum over the batch."""
        return grad.sum(0)


def _product(matrix: Any, x: Tensor, rows: int, bias: Tensor | None = None) -> Tensor:
    out = torch.empty(x.shape[0], rows)
    address = 0 if bias is None else bias.data_ptr()
    matrix.multiply(x.data_ptr(), x.shape[0], out.data_ptr(), address, torch.get_num_threads())
    return out


class SparseLinear(SparseLayer, Catalogued):
    """A linear layer whose only weights are the survivors of its support.

    The forward product and both backward products visit survivors only, so that time, memory,
    gradients and optimizer state all follow their number. Supports move with :meth:`move`,
    without a dense copy.

    Parameters
    ----------
    in_features, out_features : int
        As for ``torch.nn.Linear``; at most 65,536 each.
    density : float, default 0.1
        Fraction of weights that exist. The support is drawn at random, the values from the
        uniform distribution of ``nn.Linear`` scaled to the mean number of inputs per output.
    bias : bool, default True
        Whether to add a learned bias.
    generator : torch.Generator, optional
        For the support and the values.

    Attributes
    ----------
    values : nn.Parameter
        Shape (survivors,), float32, in row-major order of the support.
    support : Support
        Where they are.

    Raises
    ------
    OptionError
        If `density` is not in (0, 1].

    Notes
    -----
    The source computes both gradients in one pass over CSR; here each is a pass of its own
    over CSR or its transpose, which lets threads work without sharing outputs.
    """

    card = Card(
        name="sparseprop",
        title="SparseProp: Efficient Sparse Backpropagation for Faster Training of Neural Networks",
        authors="Mahdi Nikdan et al.",
        year=2023,
        arxiv="2302.04852",
        summary="Forward and backward products of a sparse layer that visit survivors only",
    )

    def __init__(
        self,
        in_features: int,
        out_features: int,
        density: float = 0.1,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self._draw((out_features, in_features), density, bias, generator)

    @classmethod
    def from_dense(cls, weight: Tensor, bias: Tensor | None = None) -> Self:
        """Take the survivors of a dense weight, (out_features, in_features).

        Parameters
        ----------
        weight : Tensor
            Zero where no connection is; float32 on the CPU.
        bias : Tensor, optional
            Shape (out_features,).
        """
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._take(weight.detach(), bias)
        return layer

    def make_products(self, support: Support) -> LinearProducts:
        """Return products with rows of inputs."""
        return LinearProducts(support)

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return self.support.shape[0]

    @property
    def in_features(self) -> int:
        """Columns of the weight."""
        return self.support.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ W.T + bias`` for `x` of shape (..., in_features), float32."""
        if x.shape[-1] != self.in_features or x.dtype != torch.float32:
            raise LayerError(
                f"a sparse layer of {self.in_features} float32 inputs was given {x.dtype} of shape "
                f"{tuple(x.shape)}"
            )
        flat = x.reshape(math.prod(x.shape[:-1]), self.in_features).contiguous()
        return self.multiply(flat).reshape(*x.shape[:-1], self.out_features)

    def to_dense(self) -> Tensor:
        """Return the weight as a dense tensor (out_features, in_features)."""
        return self.to_matrix()

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        return f"{self.in_features} -> {self.out_features}, density={self.density:.3g}"
