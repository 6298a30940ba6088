"""Giving the weights and outputs of a model a format: a pattern to choose by, a layout to keep."""

from __future__ import annotations

__all__ = ["Format", "LayoutLinear", "sparsify"]

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from thresher.core.errors import OptionError

from ..parts.patterns import Pattern
from . import operators
from .layouts.base import Layout, named_layout
from .packed.linear import PackedLinear


@dataclass(frozen=True)
class Format:
    """What a matrix becomes: a sparsifier, which is a pattern, and a layout.

    Parameters
    ----------
    pattern : str or Pattern, default "unstructured"
        Keeps the largest magnitudes that it allows; see
        :meth:`Pattern.parse <thresher.core.named.Spelled.parse>`.
        A pattern of a user's own class works too.
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
        return named_layout(self.layout).from_dense(kept.detach().cpu()).to(kept.device)


class LayoutLinear(nn.Module):
    """A linear layer that trains the values of a weight in any layout, on a fixed support.

    :class:`~thresher.run.packed.sparse_linear.SparseLinear` trains CSR faster, and moves its
    support.

    Parameters
    ----------
    layout : Layout
        The weight, (out_features, in_features), which must store real numbers.
    bias : Tensor, optional
        Shape (out_features,).
    """

    def __init__(self, layout: Layout, bias: Tensor | None = None) -> None:
        super().__init__()
        self.layout = layout
        self.values = layout.train_values()
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ W.T + bias``; `x` has the dtype of the weight."""
        if self.values.data_ptr() != self.layout.tensors()["values"].data_ptr():
            layout = self.layout.to(self.values.device)
            tensors = layout.tensors() | {"values": self.values.detach()}
            self.layout = layout.from_tensors(tensors, self.layout.shape, self.layout.settings)
            self.layout.trained = self.values
        out: Tensor = operators.linear(x, self.layout)
        return out if self.bias is None else out + self.bias

    def packed(self) -> PackedLinear:
        """Return the layer for inference and for checkpoints, sharing its memory."""
        return PackedLinear(self.layout, self.bias)

    def extra_repr(self) -> str:
        """Describe the layer in ``print(model)``."""
        return f"{self.layout!r}, bias={self.bias is not None}"


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
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        kept = form.sparsify(linear.weight.detach())
        if isinstance(kept, Layout):
            model.set_submodule(name, LayoutLinear(kept, linear.bias).train(linear.training))
        else:
            linear.weight.data = kept
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
