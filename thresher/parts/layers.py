"""Layers as matrices: parameters that multiply inputs, whichever module holds them."""

from __future__ import annotations

__all__ = ["Layer", "bias_of"]

from dataclasses import dataclass, field

import torch
from torch import nn

from ..core.errors import LayerError, NumericalError
from .forms import Form, form_of


@dataclass(frozen=True)
class Layer:
    """A parameter, or a part of one, seen as a matrix: rows are outputs and columns inputs.

    Parameters
    ----------
    name : str
        The module's path in the model; for parameters that no module of their own holds, the
        parameter's path, with the expert or projection in brackets.
    module : nn.Module
        Where the parameter is.
    attribute : str, default "weight"
        Its name there.
    form : Form, optional
        How it is a matrix; by default as its module multiplies.
    part : tuple of int, optional
        First index and number of indices along the parameter's first axis, for one expert or
        one projection of several.
    users : tuple of nn.Module, optional
        Modules whose input the matrix multiplies when they are called: several when they share
        the parameter, none when it is used without such a call. By default `module` alone.
    parameter : str, optional
        The parameter's path in the model; by default ``name.attribute``.
    by_products : bool, default False
        Whether what the matrix multiplies is seen in the products that read the parameter, not
        in the calls of its users: these compute in a way of their own, or are not alone.
    readers : tuple of nn.Module, default ()
        Modules that read the parameter besides its users.

    Raises
    ------
    LayerError
        If the module's weight has no known form and none is given.
    """

    name: str
    module: nn.Module
    attribute: str = "weight"
    form: Form = None  # type: ignore[assignment]
    part: tuple[int, int] | None = None
    users: tuple[nn.Module, ...] = None  # type: ignore[assignment]
    parameter: str = field(default="")
    by_products: bool = False
    readers: tuple[nn.Module, ...] = ()

    def __post_init__(self) -> None:
        if self.form is None:
            form = form_of(self.module)
            if form is None:
                raise LayerError(f"{type(self.module).__name__} {self.name!r} is no known layer")
            object.__setattr__(self, "form", form)
        if self.users is None:
            object.__setattr__(self, "users", (self.module,))
        if not self.parameter:
            object.__setattr__(self, "parameter", f"{self.name}.{self.attribute}".strip("."))

    @property
    def is_called(self) -> bool:
        """Whether the calls of its users show what the matrix multiplies."""
        return bool(self.users) and not self.by_products

    @property
    def weight(self) -> torch.Tensor:
        """The stored weight: the parameter, or a view of its part."""
        return self.part_of(getattr(self.module, self.attribute))

    def part_of(self, whole: torch.Tensor) -> torch.Tensor:
        """Return the layer's part of a tensor of the parameter's shape, such as a gradient."""
        if self.part is None:
            return whole
        some = whole.narrow(0, *self.part)
        return some.squeeze(0) if whole.dim() == 3 else some

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the matrix form, without making it."""
        return self.form.shape(tuple(self.weight.shape))

    def matrix(self, tensor: torch.Tensor | None = None) -> torch.Tensor:
        """Return the weight as a float32 matrix.

        Parameters
        ----------
        tensor : Tensor, optional
            Something else of the weight's own shape, such as its gradient.

        Returns
        -------
        Tensor of shape (rows, columns) or (groups, rows, columns)
        """
        value = self.weight if tensor is None else tensor
        return self.form.matrix(value.detach().float())

    def store(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return a matrix in the weight's own shape and dtype."""
        weight = self.weight
        return self.form.store(matrix, tuple(weight.shape)).to(weight.dtype).contiguous()

    def overwrite(self, value: torch.Tensor) -> None:
        """Give the weight another value, of its own shape, wherever it is used."""
        self.weight.copy_(value)
        for user in self.users:
            # Loaded one by one, modules that share a weight hold a copy each.
            if user is not self.module:
                user.get_parameter("weight").data.copy_(value)

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows that the matrix multiplies when its module is given `x`.

        Parameters
        ----------
        x : Tensor
            The module's input.

        Returns
        -------
        Tensor of shape (tokens, columns) or (groups, tokens, columns)
            One row per token, or per output position of a convolution.
        """
        return self.form.inputs(x)

    def products(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what its module makes of rows of input, (..., rows), in float32, bias included."""
        made = rows @ self.matrix().mT
        bias = bias_of(self)
        return made if bias is None else made + bias

    def check_in_memory(self) -> None:
        """Raise if the weight is not in this process's memory.

        Raises
        ------
        LayerError
            Naming the layer.
        """
        if self.weight.is_meta:
            raise LayerError(
                f"the weight of layer {self.name!r} is not in memory (it is on the meta device, or "
                "offloaded); load the model whole, without device_map, or prune its folder with "
                "`thresher prune`"
            )

    def check_finite(self) -> None:
        """Raise if the weight holds NaN or infinite values.

        Raises
        ------
        NumericalError
            Naming the layer and how many values are affected.
        """
        weight = self.weight
        bad = int((~torch.isfinite(weight)).sum())
        if bad:
            raise NumericalError(
                f"layer {self.name!r} has {bad} NaN or infinite weights of {weight.numel()}; "
                "repair or exclude the layer"
            )


def bias_of(layer: Layer) -> torch.Tensor | None:
    """Return the bias that a layer's module adds to its products, in float32."""
    bias = getattr(layer.module, "bias", None)
    return bias.detach().float() if isinstance(bias, torch.Tensor) else None
