"""Layouts: how the survivors of a weight matrix are stored and multiplied."""

from __future__ import annotations

__all__ = ["Layout"]

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ...core.errors import LayerError
from ...core.named import Named
from .buffers import Buffer, Outline, check_buffers, check_sizes
from .handles import held, hold


class Layout(Named, abc.ABC):
    """A stored matrix ``W`` of shape (rows, columns) that can be multiplied.

    A subclass that defines `name` is known by being defined, in this package or in a user's own
    file: :meth:`known` finds it. It is then tried by
    :func:`thresher.run.pack`, saved in checkpoints and put through the layout contract test. It
    must define :meth:`from_dense`, :meth:`to_dense`, :meth:`tensors` and :meth:`from_tensors`; a
    layout without a kernel of its own inherits :meth:`multiply`, which converts to dense.

    Parameters
    ----------
    shape : (int, int)
        Rows (output features) and columns (input features).
    dtype : torch.dtype
        Of the dense matrix, and of the inputs and outputs of :meth:`matmul`.
    """

    kind = "layout"
    exact: ClassVar[bool] = True
    """Whether the dense matrix comes back bit for bit (a quantised layout sets this to False)."""

    input_levels: ClassVar[int | None] = None
    """Levels on each side of zero that every input row is rounded to; None when it is not."""

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.shape = shape
        self.dtype = dtype
        self.handle = hold(self)

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Return why this layout cannot hold `weight` or would store no fewer bytes, or None.

        Parameters
        ----------
        weight : Tensor
            Dense, shape (rows, columns), with zeros where nothing is kept.

        Returns
        -------
        str or None
            One line for the user; None when the layout is a candidate.
        """
        return None

    @classmethod
    def refusal_on(cls, device: torch.device) -> str | None:
        """Return why packing should not try this layout on `device`, or None.

        A layout can be moved to any device, see :meth:`to`; where it has no kernel, it multiplies
        as a dense matrix, which is correct and never faster than a dense layer.

        Parameters
        ----------
        device : torch.device
            Where the layer is.

        Returns
        -------
        str or None
            One line for the user. Default: None on the CPU, refused elsewhere.
        """
        return None if device.type == "cpu" else f"no kernel for {device.type}"

    @classmethod
    def example(cls, weight: Tensor) -> Tensor | None:
        """Return a matrix like `weight` that this layout is made for, for tests and benchmarks.

        The default is `weight` itself; layouts of a pattern drop what breaks the pattern (and
        columns or rows that do not fill a group). None means that there is no such matrix.
        """
        return weight

    @classmethod
    @abc.abstractmethod
    def from_dense(cls, weight: Tensor) -> Self:
        """Pack a dense matrix, shape (rows, columns), float32 or bfloat16 on the CPU."""

    @abc.abstractmethod
    def to_dense(self) -> Tensor:
        """Return the matrix as a dense tensor of `shape` and `dtype`."""

    @abc.abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the stored buffers by name, as a checkpoint keeps them."""

    @classmethod
    @abc.abstractmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], settings: Mapping[str, int]
    ) -> Self:
        """Bind stored buffers without passing through a dense matrix.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            What :meth:`tensors` returned.
        shape : (int, int)
            Rows and columns of the matrix.
        settings : mapping of str to int
            What :attr:`settings` returned.

        Raises
        ------
        LayerError
            If a buffer is missing, of another type or length than it must be, or holds
            positions outside the matrix; the message names the buffer.
        """

    @classmethod
    def expected(
        cls, shape: tuple[int, int], settings: Mapping[str, int]
    ) -> Mapping[str, Buffer] | None:
        """Return what the buffers of a matrix must look like, so that files can be checked.

        It is asked before anything is read, with whatever numbers a file holds. A layout that
        does not define it is checked by its :meth:`from_tensors` alone.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns.
        settings : mapping of str to int
            As :attr:`settings` has them.

        Returns
        -------
        mapping of str to Buffer, or None
            By name, all that there are; None (the default) when nothing is said.

        Raises
        ------
        LayerError
            If no matrix of this shape has these settings.
        """
        return None

    @classmethod
    def check(
        cls, found: Mapping[str, Outline], shape: tuple[int, int], settings: Mapping[str, int]
    ) -> None:
        """Raise unless buffers of these outlines can be a matrix of this shape.

        Nothing is allocated for it, and no buffer is read.

        Raises
        ------
        LayerError
            Naming the buffer, the setting or the size that is not possible.
        """
        check_sizes(shape)
        expected = cls.expected(shape, settings)
        if expected is not None:
            check_buffers(found, expected)

    @property
    def settings(self) -> dict[str, int]:
        """The numbers besides shape and buffers that :meth:`from_tensors` needs."""
        return {}

    @property
    def device(self) -> torch.device:
        """Where the buffers are, and where inputs must be."""
        return next(iter(self.tensors().values())).device

    def to(self, device: torch.device | str) -> Self:
        """Return this matrix with its buffers on another device; itself if they are there.

        Parameters
        ----------
        device : torch.device or str
            Such as ``"cuda"`` or ``"cpu"``.
        """
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        if next(iter(moved.values())).device == self.device:
            return self
        return self.from_tensors(moved, self.shape, self.settings)

    @property
    def nbytes(self) -> int:
        """Bytes of all stored buffers."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    def matmul(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return ``x @ W.T + bias``, with gradients to `x`.

        Parameters
        ----------
        x : Tensor
            Shape (..., columns), of the layout's dtype.
        bias : Tensor, optional
            Shape (rows,), float32; a constant.

        Returns
        -------
        Tensor
            Shape (..., rows), of the layout's dtype.

        Raises
        ------
        LayerError
            If `x` has another dtype, another last dimension or is on another device.
        """
        if x.shape[-1:] != (self.shape[1],):
            raise LayerError(
                f"layout {self.name!r} holds {self.shape[0]} x {self.shape[1]} weights and cannot "
                f"multiply an input of shape {tuple(x.shape)}; its last dimension must be "
                f"{self.shape[1]}"
            )
        if x.dtype != self.dtype and torch.is_autocast_enabled(x.device.type):
            x = x.to(self.dtype)
        if x.dtype != self.dtype:
            raise LayerError(
                f"layout {self.name!r} holds {self.dtype} weights and was given an input of "
                f"{x.dtype}; convert one of them, e.g. x.to({self.dtype})"
            )
        if x.device != self.device:
            raise self.elsewhere(x)
        # No more operators and calls than these: each is felt beside a small product.
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return multiply(x, bias, self.handle, self.shape[0])
        x = x.contiguous()
        if torch.is_grad_enabled() and x.requires_grad:
            return _Multiply.apply(x, self, bias)
        return self.multiply(x, bias)

    def elsewhere(self, x: Tensor) -> LayerError:
        """Return the error for an input on another device than the buffers."""
        return LayerError(
            f"layout {self.name!r} is on {self.device} and was given an input on {x.device}; "
            f"move one of them, e.g. x.to({str(self.device)!r})"
        )

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x @ W.T + bias`` for a contiguous `x` of shape (..., columns).

        The default converts to dense; layouts with kernels override it.
        """
        dense_bias = None if bias is None else bias.to(self.dtype)
        return nn.functional.linear(x, self.to_dense(), dense_bias)

    def multiply_transposed(self, grad: Tensor) -> Tensor:
        """Return ``grad @ W``, the gradient of the input, for `grad` of shape (..., rows)."""
        return grad @ self.to_dense()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = {name: tensor.clone() for name, tensor in self.tensors().items()}
        return self.from_tensors(copied, self.shape, self.settings)

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the tensors: kernels are bound to addresses, which end with the process.
        tensors = {name: _as_int16(tensor) for name, tensor in self.tensors().items()}
        return _unpickled, (type(self), tensors, self.shape, self.settings)

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"{type(self).__name__}({rows} x {columns}, {self.dtype}, {self.nbytes:,} bytes)"


def _as_int16(tensor: Tensor) -> tuple[Tensor, bool]:
    """Return the bits of 16-bit positions as int16, whose pickles torch reads, and if they are."""
    unsigned = tensor.dtype == torch.uint16
    return tensor.view(torch.int16) if unsigned else tensor, unsigned


def _unpickled(
    kind: type[Layout],
    tensors: Mapping[str, tuple[Tensor, bool]],
    shape: tuple[int, int],
    settings: Mapping[str, int],
) -> Layout:
    restored = {n: t.view(torch.uint16) if unsigned else t for n, (t, unsigned) in tensors.items()}
    return kind.from_tensors(restored, shape, settings)


class _Multiply(torch.autograd.Function):
    """Gradient of the product with respect to its input."""

    @staticmethod
    def forward(x: Tensor, layout: Layout, bias: Tensor | None) -> Tensor:
        return layout.multiply(x, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.layout, _ = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.layout.multiply_transposed(grad), None, None

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor, layout: Layout, bias: Tensor | None) -> Any:
        return _batched(dims, x, bias, lambda x, bias: _Multiply.apply(x, layout, bias))


@torch.library.custom_op("thresher::multiply", mutates_args=())
def multiply(x: Tensor, bias: Tensor | None, layout: int, rows: int) -> Tensor:
    """Return ``x @ W.T + bias``, for graphs: compilers and tracers take it as it is."""
    product: Tensor = held(layout).multiply(x.contiguous(), bias)
    return product


@torch.library.custom_op("thresher::multiply_transposed", mutates_args=())
def _multiply_transposed(grad: Tensor, layout: int, columns: int) -> Tensor:
    product: Tensor = held(layout).multiply_transposed(grad)
    return product


@multiply.register_fake
def _(x: Tensor, bias: Tensor | None, layout: int, rows: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], rows))


@_multiply_transposed.register_fake
def _(grad: Tensor, layout: int, columns: int) -> Tensor:
    return grad.new_empty((*grad.shape[:-1], columns))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, _, ctx.layout, _ = inputs
    ctx.columns = x.shape[-1]


def _input_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return _multiply_transposed(grad, ctx.layout, ctx.columns), None, None, None


multiply.register_autograd(_input_gradient, setup_context=_remember)


def _batched(
    dims: Sequence[int | None],
    x: Tensor,
    bias: Tensor | None,
    product: Callable[[Tensor, Tensor | None], Tensor],
) -> tuple[Tensor, int]:
    """Return products for an axis of examples, which is one more leading axis of `x`."""
    if dims[0] is not None:
        x = x.movedim(dims[0], 0)
    if bias is None or dims[-1] is None:
        return product(x, bias), 0
    offset = bias.movedim(dims[-1], 0)
    result = product(x, None)
    missing = result.dim() - offset.dim() + (dims[0] is None)
    return result + offset[(slice(None), *[None] * missing)].to(result.dtype), 0


@multiply.register_vmap
def _(info: Any, dims: Any, x: Tensor, bias: Tensor | None, layout: int, rows: int) -> Any:
    return _batched(dims[:2], x, bias, lambda x, bias: multiply(x, bias, layout, rows))


@_multiply_transposed.register_vmap
def _(info: Any, dims: Any, grad: Tensor, layout: int, columns: int) -> Any:
    return _multiply_transposed(grad.movedim(dims[0], 0), layout, columns), 0
