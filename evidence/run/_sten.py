"""STen's programming model: layouts, operators and sparsifiers as registries open to a user's own.

Layouts and sparsifiers (patterns) are the library's; here are operators on them, gradients for
the values that a layout stores, and the call that gives a whole model formats.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from thresher.core.errors import LayerError, OptionError
from thresher.parts.patterns import Pattern
from thresher.run.layouts.base import Layout
from thresher.run.layouts.kernel import KernelLayout
from thresher.run.packed.linear import PackedLinear

_OPERATORS: dict[str, Operator] = {}
_COUNTED = 1 << 24
"""Up to here float32 counts exactly."""


class Trained:
    """A matrix in a layout whose stored values are a parameter, on a fixed support.

    Products pass gradients to the values, and an optimizer that updates them in place updates
    the matrix, whose memory they share.

    Parameters
    ----------
    layout : Layout
        With a buffer ``values`` of real numbers.

    Raises
    ------
    LayerError
        If it has none.
    """

    def __init__(self, layout: Layout) -> None:
        values = layout.tensors().get("values")
        if values is None or not values.is_floating_point():
            raise LayerError(f"layout {layout.name!r} stores no values that could be trained")
        self.layout = layout
        self.values = nn.Parameter(values.detach())

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.layout.shape

    def to_dense(self) -> Tensor:
        """Return the dense matrix, through which gradients reach the values."""
        dense: Tensor = _Dense.apply(self.values, self)
        return dense

    def matmul(self, x: Tensor) -> Tensor:
        """Return ``x @ W.T`` from the layout's own product, with gradients to both factors."""
        if self.values.data_ptr() != self.layout.tensors()["values"].data_ptr():
            self._follow_values()
        out: Tensor = _Multiply.apply(x.contiguous(), self.values, self)
        return out

    def gather(self, dense: Tensor) -> Tensor:
        """Return the entries of a dense matrix at the places of the stored values."""
        which, rows, columns = self._places
        gathered = dense.new_zeros(self.values.shape)
        gathered.view(-1)[which] = dense[rows, columns]
        return gathered

    @functools.cached_property
    def _places(self) -> tuple[Tensor, Tensor, Tensor]:
        """Which values lie inside the matrix, and their rows and columns.

        Found for every layout by storing in the values' stead their numbers, from 1 on.
        """
        count = self.values.numel()
        if count > _COUNTED:
            raise LayerError(f"{count:,} values are more than float32 can number ({_COUNTED:,})")
        numbers = torch.arange(1.0, count + 1, device=self.values.device)
        numbered = _unchecked(self.layout, numbers.reshape(self.values.shape)).to_dense()
        rows, columns = numbered.nonzero(as_tuple=True)
        return numbered[rows, columns].long() - 1, rows, columns

    def _follow_values(self) -> None:
        """Bind the layout anew after the parameter was moved or converted."""
        self.layout = self._with_values(self.values.detach())

    def _with_values(self, values: Tensor) -> Layout:
        layout = self.layout.to(values.device)
        return layout.from_tensors(
            layout.tensors() | {"values": values}, layout.shape, layout.settings
        )


def _unchecked(layout: Layout, values: Tensor) -> Layout:
    """Return a layout with other values, also where blocks at the edges reach over the matrix.

    A layout refuses anything but zeros there, which are not to be numbered.
    """
    if not isinstance(layout, KernelLayout):
        tensors = layout.tensors() | {"values": values}
        return layout.from_tensors(tensors, layout.shape, layout.settings)
    other = object.__new__(type(layout))
    vars(other).update(vars(layout), dtype=values.dtype)
    vars(other)["_tensors"] = layout.tensors() | {"values": values}
    return other


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, matrix: Trained) -> Tensor:
        ctx.matrix = matrix
        return matrix.layout.to_dense()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.matrix.gather(grad), None


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, matrix: Trained) -> Tensor:
        ctx.matrix = matrix
        ctx.save_for_backward(x)
        return matrix.layout.multiply(x, None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x,) = ctx.saved_tensors
        need_x, need_values, _ = ctx.needs_input_grad
        x_grad = grad @ ctx.matrix.layout.to_dense() if need_x else None
        if not need_values:
            return x_grad, None, None
        batch = math.prod(x.shape[:-1])
        outer = grad.reshape(batch, grad.shape[-1]).T @ x.reshape(batch, x.shape[-1])
        return x_grad, ctx.matrix.gather(outer), None


Operand = Tensor | Layout | Trained


class Operator:
    """A function of matrices whose implementation depends on the layouts they are stored in.

    Where no implementation is registered for the layouts of a call, the operands are converted to
    dense ones, so that every operator works on every layout, and gradients reach the values that
    a :class:`Trained` layout stores.

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
    """

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
            Whether it takes :class:`Trained` operands and passes gradients to their values. The
            dense way is taken when they are asked for and it does not.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._implementations[kinds] = (function, differentiable)
            return function

        return register

    def implementation(self, *operands: Operand) -> Callable[..., Any] | None:
        """Return the registered function for these operands; None where they become dense."""
        bases = [type(_layout_of(operand)).__mro__ for operand in operands]
        training = torch.is_grad_enabled() and any(isinstance(o, Trained) for o in operands)
        for kinds in itertools.product(*bases):
            function, differentiable = self._implementations.get(kinds, (None, False))
            if function is not None:
                return function if differentiable or not training else None
        return None

    def __call__(self, *operands: Operand, into: Format | None = None, **options: Any) -> Any:
        """Apply the operator.

        Parameters
        ----------
        *operands : Tensor, Layout or Trained
            The matrices.
        into : Format, optional
            Sparsifier and layout of the result; dense by default.
        **options : Any
            Handed to the implementation.
        """
        function = self.implementation(*operands)
        if function is None:
            function, operands = self._dense, tuple(map(to_dense, operands))
        elif not torch.is_grad_enabled():
            operands = tuple(map(_layout_of, operands))
        result = function(*operands, **options)
        return result if into is None else into.sparsify(to_dense(result))


def to_dense(operand: Operand) -> Tensor:
    """Return a dense tensor, through which gradients reach the values of a trained layout."""
    return operand if isinstance(operand, Tensor) else operand.to_dense()


def _layout_of(operand: Operand) -> Tensor | Layout:
    return operand.layout if isinstance(operand, Trained) else operand


linear = Operator("linear", nn.functional.linear)
"""``x @ W.T``, for a dense `x` of shape (..., columns)."""
add = Operator("add", torch.add)
"""Sum of two matrices of one shape."""
multiply = Operator("multiply", torch.mul)
"""Product of two matrices of one shape, entry by entry."""
transpose = Operator("transpose", torch.t)
"""Rows become columns."""


@linear.implement(Tensor, Layout, differentiable=True)
def _layout_linear(x: Tensor, weight: Layout | Trained) -> Tensor:
    return weight.matmul(x)


@dataclass(frozen=True)
class Format:
    """What a matrix becomes: a sparsifier, which is a pattern, and a layout.

    Parameters
    ----------
    pattern : str or Pattern, default "unstructured"
        Keeps the largest magnitudes that it allows; see
        :meth:`thresher.parts.patterns.Pattern.parse`. A pattern of a user's own class works too.
    density : float, optional
        Share of entries to keep, in (0, 1]; left out for patterns that imply it, such as 2:4.
    layout : str, optional
        Name of a registered layout; a dense tensor with zeros when left out.

    Raises
    ------
    OptionError
        If neither pattern nor `density` says how much to keep, or `density` is out of range.
    """

    pattern: str | Pattern = "unstructured"
    density: float | None = None
    layout: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self._share <= 1:
            raise OptionError(f"density={self._share} must be above 0 and at most 1")

    @property
    def _share(self) -> float:
        density = self.density if self.density is not None else Pattern.parse(self.pattern).density
        if density is None:
            raise OptionError(
                f"pattern {self.pattern!r} does not say how much to keep; add density="
            )
        return density

    def sparsify(self, dense: Tensor) -> Layout | Tensor:
        """Return the survivors of a matrix; a dense result passes gradients on to them."""
        pattern = Pattern.parse(self.pattern)
        mask = pattern.mask(dense.detach().abs(), pattern.count(dense.shape, self._share))
        kept = dense * mask
        if self.layout is None:
            return kept
        return Layout.named(self.layout).from_dense(kept.detach().cpu()).to(kept.device)


class LayoutLinear(nn.Module):
    """A linear layer that trains the values of a weight in any layout, on a fixed support.

    Parameters
    ----------
    layout : Layout
        The weight, (out_features, in_features), which must store real numbers.
    bias : Tensor, optional
        Shape (out_features,).
    """

    def __init__(self, layout: Layout, bias: Tensor | None = None) -> None:
        super().__init__()
        self.layout = Trained(layout)
        self.values = self.layout.values
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ W.T + bias``; `x` has the dtype of the weight."""
        self.layout.values = self.values  # which moving and converting the module may replace
        out: Tensor = linear(x, self.layout)
        return out if self.bias is None else out + self.bias

    def packed(self) -> PackedLinear:
        """Return the layer for inference and for checkpoints, sharing its memory."""
        return PackedLinear(self.layout.layout, self.bias)


def sparsify(
    model: nn.Module,
    weights: Mapping[str, Format],
    outputs: Mapping[str, Format] | None = None,
) -> nn.Module:
    """Give linear layers sparse weights, and modules sparse outputs, that can be trained.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    weights : mapping of str to Format
        By shell pattern of the layers' names; the first that matches counts. With a layout the
        layer becomes a :class:`LayoutLinear`; without one its small weights become zero once.
    outputs : mapping of str to Format, optional
        By shell pattern of modules' names: their outputs keep only their largest entries, and
        gradients pass through those. Without a layout.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    OptionError
        If a shell pattern matches nothing, or an output has a layout.
    """
    linears = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    for name, form in _assign(weights, linears, "linear layer"):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        kept = form.sparsify(layer.weight.detach())
        if isinstance(kept, Layout):
            model.set_submodule(name, LayoutLinear(kept, layer.bias).train(layer.training))
        else:
            layer.weight.data = kept
    names = [name for name, _ in model.named_modules() if name]
    for name, form in _assign(outputs or {}, names, "module"):
        if form.layout is not None:
            raise OptionError(
                f"the output of {name!r} has layout {form.layout!r}; modules hand on dense "
                "tensors, leave layout= out"
            )
        model.get_submodule(name).register_forward_hook(_sparsify_output(form))
    return model


def _assign(
    formats: Mapping[str, Format], names: Iterable[str], what: str
) -> list[tuple[str, Format]]:
    found = []
    unmatched = set(formats)
    for name in names:
        matching = [pattern for pattern in formats if fnmatchcase(name, pattern)]
        unmatched -= set(matching)
        if matching:
            found.append((name, formats[matching[0]]))
    if unmatched:
        raise OptionError(f"no {what} is called {sorted(unmatched)[0]!r}")
    return found


def _sparsify_output(form: Format) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        # As a matrix of examples by features: a pattern chooses in the last dimension.
        flat = output.reshape(math.prod(output.shape[:-1]), output.shape[-1])
        kept = form.sparsify(flat)
        assert isinstance(kept, torch.Tensor)
        return kept.reshape(output.shape)

    return hook
