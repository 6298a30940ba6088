"""Dense layers that could be packed: a matrix, an input to time, and the packed layer."""

from __future__ import annotations

__all__ = ["Candidate", "candidate_of", "kind_of"]

import abc
import re
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from ..layouts.base import Layout
from ..layouts.convolution import Geometry, as_matrix
from ..layouts.convolving import ConvolvingLayout
from ..layouts.indexed import too_dense
from ..packed.conv import PackedConv2d
from ..packed.layer import PackedLayer
from ..packed.linear import PackedLinear
from ..packed.replaceable import PACKED_DTYPES


def kind_of(name: str) -> str:
    """Return a layer's name with a star for every number, as in ``"layers.*.mlp.up_proj"``.

    Parameters
    ----------
    name : str
        Name of the layer in its model.
    """
    return re.sub(r"\d+", "*", name)


class Candidate(abc.ABC):
    """A dense layer that could be packed.

    Parameters
    ----------
    module : nn.Module
        The dense layer.
    matrix : Tensor
        Its weight, rows being outputs; kept on the CPU, where layouts are packed.
    key : hashable
        What its time depends on besides the matrix.
    """

    def __init__(self, module: nn.Linear | nn.Conv2d, matrix: Tensor, key: Hashable) -> None:
        self.module, self.matrix, self.key = module, matrix.cpu(), key

    @property
    def device(self) -> torch.device:
        """Where the layer runs."""
        return self.module.weight.device

    def refusal(self, layout: type[Layout]) -> str | None:
        """Return why `layout` cannot take this layer or would not help, or None."""
        if self.matrix.dtype not in PACKED_DTYPES:
            return f"weights of {self.matrix.dtype} are not packed"
        return layout.refusal_on(self.device) or layout.refusal(self.matrix)

    @abc.abstractmethod
    def example(self, batch: int) -> Tensor:
        """Return a random input with so many rows or images."""

    def _random(self, *shape: int) -> Tensor:
        numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return numbers.to(self.device, self.matrix.dtype)

    def stored(self, layout: type[Layout]) -> Layout:
        """Return the weight in a layout, on the layer's device."""
        return layout.from_dense(self.matrix).to(self.device)

    @abc.abstractmethod
    def holding(self, weight: Layout) -> PackedLayer:
        """Return the layer that takes this one's place, with its weight stored."""


class _LinearCandidate(Candidate):
    """A ``torch.nn.Linear``."""

    def __init__(self, module: nn.Linear) -> None:
        super().__init__(module, module.weight.detach(), "linear")

    def example(self, batch: int) -> Tensor:
        """Return rows of inputs."""
        return self._random(batch, self.matrix.shape[1])

    def holding(self, weight: Layout) -> PackedLinear:
        """Return the packed linear layer."""
        return PackedLinear(weight, self.module.bias)


class _ConvCandidate(Candidate):
    """A ``torch.nn.Conv2d`` and the size of the images that reach it, once that is known."""

    def __init__(self, module: nn.Conv2d, image: tuple[int, int] | None) -> None:
        super().__init__(module, as_matrix(module.weight.detach()).contiguous(), None)
        self.image = image
        self.geometry: Geometry | None = None
        if module.padding_mode == "zeros":
            self.geometry = Geometry.of(module)
            self.key = (self.geometry, image)

    def refusal(self, layout: type[Layout]) -> str | None:
        """Refuse layouts that cannot convolve, and all where the size of images is not known."""
        if self.geometry is None:
            return "only padding with zeros has a sparse kernel"
        if self.image is None:
            return "no example showed the size of its images"
        if not issubclass(layout, ConvolvingLayout):
            return f"layout {layout.name!r} cannot convolve"
        if self.geometry.groups > 1 and not layout.takes_groups:
            return f"layout {layout.name!r} cannot convolve in groups"
        refusal = super().refusal(layout)
        # The few weights of a group are used so often that their bytes do not matter.
        return None if self.geometry.groups > 1 and refusal == too_dense else refusal

    def example(self, batch: int) -> Tensor:
        """Return images."""
        assert isinstance(self.module, nn.Conv2d)
        assert self.image is not None
        return self._random(batch, self.module.in_channels, *self.image)

    def holding(self, weight: Layout) -> PackedConv2d:
        """Return the packed convolution."""
        assert isinstance(weight, ConvolvingLayout)
        assert self.geometry is not None
        return PackedConv2d(weight, self.geometry, self.module.bias)


def candidate_of(module: nn.Linear | nn.Conv2d, image: tuple[int, int] | None = None) -> Candidate:
    """Return a dense layer as packing sees it.

    Parameters
    ----------
    module : nn.Linear or nn.Conv2d
        The layer.
    image : (int, int), optional
        Height and width of the images that reach a convolution.
    """
    if isinstance(module, nn.Linear):
        return _LinearCandidate(module)
    return _ConvCandidate(module, image)
