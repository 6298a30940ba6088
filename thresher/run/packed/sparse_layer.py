"""What layers that are trained with their survivors only have in common."""

from __future__ import annotations

__all__ = ["Products", "SparseLayer"]

import abc
import math
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import LayerError, OptionError
from ..layouts.support import Support


class Products(abc.ABC):
    """The three products of a sparse layer on one support, each visiting survivors only.

    Parameters
    ----------
    support : Support
        Of the layer's matrix.
    """

    def __init__(self, support: Support) -> None:
        self.support = support

    @abc.abstractmethod
    def forward(self, matrix: Any, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the layer's output; `matrix` is what :meth:`Support.bind` returned."""

    @abc.abstractmethod
    def input_gradient(self, values: Tensor, grad: Tensor, shape: torch.Size) -> Tensor:
        """Return the gradient of an input of `shape`, given that of the output."""

    @abc.abstractmethod
    def accumulate(self, matrix: Any, x: Tensor, grad: Tensor, gradient: Tensor) -> None:
        """Write the gradient of every value into `gradient`."""

    @abc.abstractmethod
    def bias_gradient(self, grad: Tensor) -> Tensor:
        """Return the gradient of the bias."""

    def value_gradient(self, x: Tensor, grad: Tensor, matrix: Any = None) -> Tensor:
        """Return the gradient at the positions of the support only, (survivors,).

        Growing connections by gradient (RigL) calls this with the support of the candidates:
        no dense gradient is formed.

        Parameters
        ----------
        x : Tensor
            The layer's input, float32.
        grad : Tensor
            Gradient of its output, float32.
        matrix : optional
            What :meth:`Support.bind` returned, where that is at hand.
        """
        gradient = torch.zeros(len(self.support))
        if matrix is None:
            matrix = self.support.bind(gradient)
        self.accumulate(matrix, x.contiguous(), grad.contiguous(), gradient)
        return gradient


class _SparseProduct(torch.autograd.Function):
    """A layer's output with gradients to its input, its survivors and its bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, layer: Any) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.products, ctx.matrix = layer.products, layer.bound()
        return layer.products.forward(ctx.matrix, x, bias)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, values = ctx.saved_tensors
        grad = grad.contiguous()
        need_x, need_values, need_bias, _ = ctx.needs_input_grad
        products = ctx.products
        return (
            products.input_gradient(values, grad, x.shape) if need_x else None,
            products.value_gradient(x, grad, ctx.matrix) if need_values else None,
            products.bias_gradient(grad) if need_bias else None,
            None,
        )


@torch.compiler.disable
def _outside_the_graph(layer: SparseLayer, x: Tensor) -> Tensor:
    return layer._product(x)


class SparseLayer(nn.Module, abc.ABC):
    """A layer whose only weights are the survivors of its support.

    A subclass says how its matrix multiplies (:meth:`make_products`). The state dict holds
    ``values``, ``bias``, the positions in ``support`` (2, survivors) and ``support_shape``; loading
    one moves the survivors to its positions. ``torch.compile`` runs the layer as it is, between
    two graphs.

    Attributes
    ----------
    values : nn.Parameter
        Shape (survivors,), float32, in row-major order of the support.
    support : Support
        Where they are in the layer's matrix, whose rows are outputs.
    """

    values: nn.Parameter
    bias: nn.Parameter | None

    @abc.abstractmethod
    def make_products(self, support: Support) -> Products:
        """Return the layer's products on a support."""

    def _draw(
        self,
        shape: tuple[int, int],
        density: float,
        bias: bool,
        generator: torch.Generator | None,
    ) -> None:
        """Choose a random support and random values for a new layer."""
        if not 0 < density <= 1:
            raise OptionError(f"density={density} must be above 0 and at most 1")
        total = math.prod(shape)
        count = max(1, round(density * total))
        flat = torch.randperm(total, generator=generator)[:count].sort().values
        bound = 1 / math.sqrt(max(1.0, shape[1] * density))
        self._install(Support(flat // shape[1], flat % shape[1], shape))
        self.values = nn.Parameter(torch.empty(count).uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None

    def _take(self, matrix: Tensor, bias: Tensor | None) -> None:
        """Take the survivors of a dense matrix for a new layer."""
        rows, columns = matrix.nonzero(as_tuple=True)
        self._install(Support(rows, columns, (matrix.shape[0], matrix.shape[1])))
        self.values = nn.Parameter(matrix[rows, columns].float())
        self.bias = None if bias is None else nn.Parameter(bias.detach().float().clone())

    def _install(self, support: Support) -> None:
        self.support = support
        self.products = self.make_products(support)
        self._bound: tuple[int, Any] | None = None

    def bound(self) -> Any:
        """Return the kernel object, bound anew when the values moved in memory."""
        address = self.values.data_ptr()
        if self._bound is None or self._bound[0] != address:
            self._bound = (address, self.support.bind(self.values.detach()))
        return self._bound[1]

    def multiply(self, x: Tensor) -> Tensor:
        """Return the output for a contiguous float32 input, with all gradients."""
        if self.values.dtype != torch.float32 or self.values.device.type != "cpu":
            raise LayerError(
                f"a sparse layer's values are {self.values.dtype} on {self.values.device}; its "
                "kernels train float32 on the CPU: convert it back with .float().cpu()"
            )
        if torch.compiler.is_compiling():
            return _outside_the_graph(self, x)
        return self._product(x)

    def _product(self, x: Tensor) -> Tensor:
        out: Tensor = _SparseProduct.apply(x, self.values, self.bias, self)
        return out

    def __getstate__(self) -> dict[str, Any]:
        # Kernels are bound to addresses: copies and pickles bind their own.
        bound = ("products", "_bound")
        return {name: value for name, value in self.__dict__.items() if name not in bound}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._install(self.support)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        support = self.support
        destination[f"{prefix}support"] = torch.stack([support.rows, support.columns])
        destination[f"{prefix}support_shape"] = torch.tensor(support.shape)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        *_, missing_keys, _unexpected_keys, error_msgs = rest
        names = [f"{prefix}support", f"{prefix}support_shape"]
        found = {key: value for key, value in state_dict.items() if key not in names}
        absent = [name for name in names if name not in state_dict]
        missing_keys.extend(absent)
        if not absent:
            rows, columns = state_dict[names[0]].to(torch.int64)
            shape = tuple(state_dict[names[1]].tolist())
            if shape == self.support.shape:
                self._install(Support(rows.clone(), columns.clone(), shape))
                self.values.data = self.values.data.new_zeros(len(rows))  # for those that follow
                self.values.grad = None
            else:
                error_msgs.append(f"{names[1]} is {shape}, expected {self.support.shape}")
        super()._load_from_state_dict(found, prefix, *rest)

    @torch.no_grad()
    def to_matrix(self) -> Tensor:
        """Return the weight as a dense matrix."""
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

    @property
    def density(self) -> float:
        """Fraction of weights that exist."""
        return len(self.support) / max(1, math.prod(self.support.shape))
