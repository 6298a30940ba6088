"""Training with weights that are sparse in memory and in arithmetic, not only in a mask."""

from __future__ import annotations

__all__ = ["SparseLinear", "Support"]

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from thresher.core.card import Card, Catalogued
from thresher.core.errors import LayerError, OptionError

from . import _run

_MOST_FEATURES = 1 << 16


class Support:
    """The positions of the survivors of a (rows, columns) matrix, by row and by column.

    Parameters
    ----------
    rows, columns : Tensor of int64
        Positions, (survivors,), in row-major order without repeats.
    shape : (int, int)
        Of the matrix.

    Raises
    ------
    LayerError
        If a position repeats, is out of order or lies outside, or the matrix has more than
        65,536 rows or columns.
    """

    def __init__(self, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> None:
        if max(shape) > _MOST_FEATURES:
            raise LayerError(
                f"a sparse {shape[0]} x {shape[1]} layer has more than 65,536 features"
            )
        self.rows, self.columns, self.shape = rows, columns, shape
        flat = rows * shape[1] + columns
        inside = bool(((rows >= 0) & (rows < shape[0]) & (columns >= 0)).all())
        if not inside or bool((columns >= shape[1]).any()) or bool((flat.diff() <= 0).any()):
            raise LayerError(
                f"positions of a {shape[0]} x {shape[1]} support must lie inside it, in row-major "
                "order and without repeats"
            )
        self._starts = _starts(rows, shape[0])
        self._indices = columns.to(torch.uint16)
        self._by_column = torch.argsort(columns, stable=True)
        self._column_values = torch.zeros(len(rows))
        self._transposed = _run.Csr(
            _starts(columns, shape[1]),
            rows[self._by_column].to(torch.uint16),
            self._column_values,
            *shape[::-1],
        )

    def __len__(self) -> int:
        return len(self.rows)

    def bind(self, values: Tensor) -> Any:
        """Return the kernel object for the matrix with these survivors, float32."""
        return _run.Csr(self._starts, self._indices, values, *self.shape)

    def transposed(self, values: Tensor) -> Any:
        """Return the kernel object of the transposed matrix, holding a copy of `values`."""
        torch.index_select(values.detach(), 0, self._by_column, out=self._column_values)
        return self._transposed

    def value_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient at these positions only, (survivors,).

        Growing connections by gradient (RigL) calls this with the support of the candidates:
        no dense gradient is formed.

        Parameters
        ----------
        x : Tensor
            Inputs, (batch, columns), float32.
        grad : Tensor
            Gradient of the outputs, (batch, rows), float32.
        """
        return _value_gradient(self.bind(torch.zeros(len(self))), len(self), x, grad)


def _starts(sorted_or_not: Tensor, count: int) -> Tensor:
    starts = torch.zeros(count + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(sorted_or_not, minlength=count), 0, out=starts[1:])
    return starts


def _product(matrix: Any, x: Tensor, rows: int, bias: Tensor | None = None) -> Tensor:
    out = torch.empty(x.shape[0], rows)
    address = 0 if bias is None else bias.data_ptr()
    matrix.multiply(x.data_ptr(), x.shape[0], out.data_ptr(), address, torch.get_num_threads())
    return out


def _value_gradient(matrix: Any, count: int, x: Tensor, grad: Tensor) -> Tensor:
    x, grad = x.contiguous(), grad.contiguous()
    gradient = torch.zeros(count)
    matrix.value_gradient(
        x.data_ptr(), grad.data_ptr(), x.shape[0], gradient.data_ptr(), torch.get_num_threads()
    )
    return gradient


class _SparseProduct(torch.autograd.Function):
    """``x @ W.T + bias`` with gradients to x, the survivors and the bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, layer: Any) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.layer, ctx.support, ctx.matrix = layer, layer.support, layer.bound()
        return _product(ctx.matrix, x, layer.out_features, bias)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, values = ctx.saved_tensors
        grad = grad.contiguous()
        need_x, need_values, need_bias, _ = ctx.needs_input_grad
        x_grad = values_grad = bias_grad = None
        if need_x:
            transposed = ctx.support.transposed(values)
            x_grad = _product(transposed, grad, ctx.support.shape[1])
        if need_values:
            values_grad = _value_gradient(ctx.matrix, len(ctx.support), x, grad)
        if need_bias:
            bias_grad = grad.sum(0)
        return x_grad, values_grad, bias_grad, None


class SparseLinear(nn.Module, Catalogued):
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
        if not 0 < density <= 1:
            raise OptionError(f"density={density} must be above 0 and at most 1")
        total = in_features * out_features
        count = max(1, round(density * total))
        flat = torch.randperm(total, generator=generator)[:count].sort().values
        bound = 1 / math.sqrt(max(1.0, in_features * density))
        self._install(Support(flat // in_features, flat % in_features, (out_features, in_features)))
        self.values = nn.Parameter(torch.empty(count).uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

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
        rows, columns = weight.detach().nonzero(as_tuple=True)
        layer._install(Support(rows, columns, (weight.shape[0], weight.shape[1])))
        layer.values = nn.Parameter(weight.detach()[rows, columns].float())
        layer.bias = None if bias is None else nn.Parameter(bias.detach().float().clone())
        return layer

    def _install(self, support: Support) -> None:
        self.support = support
        self.out_features, self.in_features = support.shape
        self._bound: tuple[int, Any] | None = None

    def bound(self) -> Any:
        """Return the kernel object, bound anew when the values moved in memory."""
        address = self.values.data_ptr()
        if self._bound is None or self._bound[0] != address:
            self._bound = (address, self.support.bind(self.values.detach()))
        return self._bound[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ W.T + bias`` for `x` of shape (..., in_features), float32."""
        if x.shape[-1] != self.in_features or x.dtype != torch.float32:
            raise LayerError(
                f"a sparse layer of {self.in_features} float32 inputs was given {x.dtype} of shape "
                f"{tuple(x.shape)}"
            )
        flat = x.reshape(math.prod(x.shape[:-1]), self.in_features).contiguous()
        out = _SparseProduct.apply(flat, self.values, self.bias, self)
        return out.reshape(*x.shape[:-1], self.out_features)

    @torch.no_grad()
    def to_dense(self) -> Tensor:
        """Return the weight as a dense tensor (out_features, in_features)."""
        dense = torch.zeros(self.support.shape)
        dense[self.support.rows, self.support.columns] = self.values
        return dense

    @torch.no_grad()
    def move(
        self,
        keep: Tensor,
        rows: Tensor,
        columns: Tensor,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        """Drop survivors and grow others, which start at zero.

        Parameters
        ----------
        keep : Tensor of bool
            Shape (survivors,): which stay.
        rows, columns : Tensor of int64
            Positions to grow, in any order; none may be a survivor that stays.
        optimizer : torch.optim.Optimizer, optional
            Its state for the values follows them; new ones start at zero.

        Raises
        ------
        LayerError
            If a position repeats or lies outside the weight.
        """
        shape = self.support.shape
        kept = keep.nonzero()[:, 0]
        flat = torch.cat(
            [(self.support.rows * shape[1] + self.support.columns)[kept], rows * shape[1] + columns]
        )
        flat, order = flat.sort()
        origin = torch.cat([kept, torch.full((len(rows),), len(self.support))])[order]
        support = Support(flat // shape[1], flat % shape[1], shape)
        state = {} if optimizer is None else optimizer.state.get(self.values, {})
        for key, old in state.items():
            if isinstance(old, Tensor) and old.shape == self.values.shape:
                state[key] = torch.cat([old, old.new_zeros(1)])[origin]
        self.values.data = torch.cat([self.values.data, torch.zeros(1)])[origin]
        self.values.grad = None
        self._install(support)

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        density = len(self.support) / math.prod(self.support.shape)
        return f"{self.in_features} -> {self.out_features}, density={density:.3g}"
