"""Layouts: how the survivors of a weight matrix are stored and multiplied."""

from __future__ import annotations

__all__ = ["Layout", "known_layouts", "named_layout"]

import abc
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ...core.errors import LayerError, OptionError, nearest

_LAYOUTS: dict[str, type[Layout]] = {}
_DIGIT = 1 << 12


class Layout(abc.ABC):
    """A stored matrix ``W`` of shape (rows, columns) that can be multiplied.

    A subclass that defines `name` is registered by being defined, in this package or in a
    user's own file, and is then tried by :func:`thresher.run.pack`, saved in checkpoints and
    put through the layout contract test. It must define :meth:`from_dense`, :meth:`to_dense`,
    :meth:`tensors` and :meth:`from_tensors`; a layout without a kernel of its own inherits
    :meth:`multiply`, which converts to dense.

    Parameters
    ----------
    shape : (int, int)
        Rows (output features) and columns (input features).
    dtype : torch.dtype
        Of the dense matrix, and of the inputs and outputs of :meth:`matmul`.
    """

    name: ClassVar[str]
    """What users and checkpoints call the layout."""
    exact: ClassVar[bool] = True
    """Whether the dense matrix comes back bit for bit (a quantised layout sets this to False)."""

    input_levels: ClassVar[int | None] = None
    """Levels on each side of zero that every input row is rounded to; None when it is not."""

    trained: nn.Parameter | None = None
    """The stored values as a parameter, once :meth:`train_values` was called."""

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.shape = shape
        self.dtype = dtype

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        name = cls.__dict__.get("name")
        if name is None:
            return
        holder = _LAYOUTS.get(name)
        if holder is not None and holder.__qualname__ != cls.__qualname__:
            raise OptionError(
                f"two layouts are named {name!r}: {holder.__module__}.{holder.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}; rename one"
            )
        _LAYOUTS[name] = cls

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

        Values that are trained, see :meth:`train_values`, become constants.

        Parameters
        ----------
        device : torch.device or str
            Such as ``"cuda"`` or ``"cpu"``.
        """
        moved = {name: tensor.detach().to(device) for name, tensor in self.tensors().items()}
        if next(iter(moved.values())).device == self.device:
            return self
        return self.from_tensors(moved, self.shape, self.settings)

    @property
    def nbytes(self) -> int:
        """Bytes of all stored buffers."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    def matmul(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return ``x @ W.T + bias``, with gradients to `x` and to values that are trained.

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
        if x.dtype != self.dtype:
            raise LayerError(
                f"layout {self.name!r} holds {self.dtype} weights and was given an input of "
                f"{x.dtype}; convert one of them, e.g. x.to({self.dtype})"
            )
        self.require_device(x)
        # No more operators than these: on cold caches, each costs as much as a small product.
        x = x.contiguous()
        if torch.is_grad_enabled() and (x.requires_grad or self.trained is not None):
            return _Multiply.apply(x, self.trained, self, bias)
        return self.multiply(x, bias)

    def require_device(self, x: Tensor) -> None:
        """Raise LayerError if an input is on another device than the buffers."""
        if x.device != self.device:
            raise LayerError(
                f"layout {self.name!r} is on {self.device} and was given an input on {x.device}; "
                f"move one of them, e.g. x.to({str(self.device)!r})"
            )

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x @ W.T + bias`` for a contiguous `x` of shape (..., columns).

        The default converts to dense; layouts with kernels override it.
        """
        dense_bias = None if bias is None else bias.to(self.dtype)
        return nn.functional.linear(x, self.to_dense(), dense_bias)

    def train_values(self) -> nn.Parameter:
        """Return the buffer ``values`` as a parameter that shares its memory.

        Products pass gradients to it, and an optimizer that updates it in place updates the
        matrix; the support stays.

        Raises
        ------
        LayerError
            If the layout has no such buffer, or not one of real numbers.
        """
        values = self.tensors().get("values")
        if values is None or not values.is_floating_point():
            raise LayerError(f"layout {self.name!r} stores no values that could be trained")
        if self.trained is None:
            self.trained = nn.Parameter(values.detach())
        return self.trained

    def gather(self, dense: Tensor) -> Tensor:
        """Return the entries of a dense matrix at the places of the buffer ``values``."""
        which, rows, columns = self._places
        gathered = dense.new_zeros(self.tensors()["values"].shape)
        gathered.view(-1)[which] = dense[rows, columns]
        return gathered

    @functools.cached_property
    def _places(self) -> tuple[Tensor, Tensor, Tensor]:
        """Which stored values lie inside the matrix, and their rows and columns.

        Found for every layout by storing the numbers of the values in their stead, in two
        digits that float32 holds exactly.
        """
        tensors = self.tensors()
        values = tensors["values"]
        numbers = torch.arange(values.numel(), device=values.device).reshape(values.shape)
        low, high = (
            self.from_tensors(
                {**tensors, "values": (digit + 1).float()}, self.shape, self.settings
            ).to_dense()
            for digit in (numbers % _DIGIT, numbers // _DIGIT)
        )
        rows, columns = low.nonzero(as_tuple=True)
        which = (high[rows, columns].long() - 1) * _DIGIT + low[rows, columns].long() - 1
        return which, rows, columns

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = {name: tensor.clone() for name, tensor in self.tensors().items()}
        return self.from_tensors(copied, self.shape, self.settings)

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"{type(self).__name__}({rows} x {columns}, {self.dtype}, {self.nbytes:,} bytes)"


class _Multiply(torch.autograd.Function):
    """Gradients of the product with respect to its input and to trained values."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor | None, layout: Layout, bias: Tensor | None
    ) -> Tensor:
        ctx.layout = layout
        if values is not None:
            ctx.save_for_backward(x)
        return layout.multiply(x, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        need_x, need_values, *_ = ctx.needs_input_grad
        x_grad = grad @ ctx.layout.to_dense() if need_x else None
        values_grad = None
        if need_values:
            (x,) = ctx.saved_tensors
            batch = math.prod(x.shape[:-1])
            outer = grad.reshape(batch, grad.shape[-1]).T @ x.reshape(batch, x.shape[-1])
            values_grad = ctx.layout.gather(outer)
        return x_grad, values_grad, None, None


def known_layouts() -> dict[str, type[Layout]]:
    """Return every registered layout by name.

    Returns
    -------
    dict of str to type
        Those of this package and those that user code has defined so far.
    """
    from .. import layouts as _package  # noqa: F401  (defines the layouts of this package)

    return dict(_LAYOUTS)


def named_layout(name: str) -> type[Layout]:
    """Return the layout called `name`.

    Raises
    ------
    OptionError
        If there is none; the message suggests the nearest.
    """
    known = known_layouts()
    if name not in known:
        raise OptionError(f"there is no layout {name!r}; {nearest(name, known)}")
    return known[name]
