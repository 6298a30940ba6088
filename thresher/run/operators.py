"""Operators on matrices in any layout: chosen by operator and layouts, or computed dense."""

from __future__ import annotations

__all__ = ["Operator", "add", "linear", "multiply", "to_dense", "transpose"]

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from thresher.core.card import Card, Catalogued
from thresher.core.errors import OptionError

from .layouts.base import Layout

if TYPE_CHECKING:
    from .sparsify import Format

Operand = Tensor | Layout
_OPERATORS: dict[str, Operator] = {}


class Operator(Catalogued):
    """A function of matrices whose implementation depends on the layouts they are stored in.

    An operator, layouts (:class:`~thresher.run.layouts.base.Layout`) and sparsifiers
    (:class:`~thresher.run.sparsify.Format`) are the three things that the source lets users
    define on their own. Where no implementation is registered for the layouts of a call, the
    operands are converted to dense ones, so that every operator works on every layout, and
    gradients reach the values that a layout stores.

    Parameters
    ----------
    name : str
        Unique name.
    dense : callable
        The operator on dense tensors, differentiable by torch.

    Raises
    ------
    OptionError
        If another operator has the name.

    Examples
    --------
    >>> import torch
    >>> from thresher.run.layouts import Csr
    >>> from thresher.run.operators import Operator
    >>> row_sums = Operator("row sums", lambda matrix: matrix.sum(1))
    >>> @row_sums.implement(Csr)
    ... def _(matrix):
    ...     stored = matrix.tensors()
    ...     return torch.segment_reduce(stored["values"], "sum", offsets=stored["row_starts"])
    >>> row_sums(Csr.from_dense(torch.eye(2)))
    tensor([1., 1.])
    """

    card = Card(
        name="sten",
        title="STen: Productive and Efficient Sparsity in PyTorch",
        authors="Andrei Ivanov et al.",
        year=2023,
        arxiv="2304.07613",
        summary="Layouts, operators and sparsifiers as registries, with a way through dense",
    )

    def __init__(self, name: str, dense: Callable[..., Tensor]) -> None:
        if name in _OPERATORS:
            raise OptionError(f"two operators are named {name!r}; rename one")
        self.name = name
        self._dense = dense
        self._implementations: dict[tuple[type, ...], tuple[Callable[..., Any], bool]] = {}
        _OPERATORS[name] = self

    def implement(
        self, *kinds: type, differentiable: bool = False
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that registers an implementation.

        Parameters
        ----------
        *kinds : type
            Of the matrix operands, in order: layouts, or ``Tensor`` for a dense one. A
            subclass takes the implementation of its nearest base.
        differentiable : bool, default False
            Whether gradients pass through the implementation to a layout's trained values. The
            dense way is taken when they are asked for and it does not.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._implementations[kinds] = (function, differentiable)
            return function

        return register

    def implementation(self, *operands: Operand) -> Callable[..., Any] | None:
        """Return the registered function for these operands; None where they become dense."""
        bases = [type(operand).__mro__ for operand in operands]
        training = any(map(_is_trained, operands))
        for kinds in itertools.product(*bases):
            function, differentiable = self._implementations.get(kinds, (None, False))
            if function is not None:
                return function if differentiable or not training else None
        return None

    def __call__(self, *operands: Operand, into: Format | None = None, **options: Any) -> Any:
        """Apply the operator.

        Parameters
        ----------
        *operands : Tensor or Layout
            The matrices.
        into : Format, optional
            Sparsifier and layout of the result; dense by default.
        **options : Any
            Handed to the implementation.
        """
        function = self.implementation(*operands)
        if function is None:
            function, operands = self._dense, tuple(map(to_dense, operands))
        result = function(*operands, **options)
        return result if into is None else into.sparsify(to_dense(result))


def to_dense(operand: Operand) -> Tensor:
    """Return a dense tensor, through which gradients reach the values of a layout."""
    if isinstance(operand, Tensor):
        return operand
    if not _is_trained(operand):
        return operand.to_dense()
    dense: Tensor = _Dense.apply(operand.trained, operand)
    return dense


def _is_trained(operand: Operand) -> bool:
    if isinstance(operand, Tensor) or not torch.is_grad_enabled():
        return False
    return operand.trained is not None


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return layout.to_dense()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.layout.gather(grad), None


def _dense_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return nn.functional.linear(x, weight, None if bias is None else bias.to(x.dtype))


linear = Operator("linear", _dense_linear)
"""``x @ W.T + bias``, for a dense `x` of shape (..., columns)."""
add = Operator("add", torch.add)
"""Sum of two matrices of one shape."""
multiply = Operator("multiply", torch.mul)
"""Product of two matrices of one shape, entry by entry."""
transpose = Operator("transpose", torch.t)
"""Rows become columns."""


@linear.implement(Tensor, Layout, differentiable=True)
def _layout_linear(x: Tensor, weight: Layout, bias: Tensor | None = None) -> Tensor:
    return weight.matmul(x, bias)
