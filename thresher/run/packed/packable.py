"""Dense layers as packing sees them: a matrix, an input to time, and the packed layer."""

from __future__ import annotations

__all__ = ["Packable", "kind_of", "packable", "packable_layers"]

import abc
import re
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import LayerError
from ..layouts.base import Layout
from ..layouts.convolution import Geometry, as_matrix
from ..layouts.convolving import ConvolvingLayout
from ..layouts.indexed import too_dense
from .conv import PackedConv2d
from .layer import PackedLayer
from .linear import PackedLinear


def kind_of(name: str) -> str:
    """Return a layer's name with a star for every number, as in ``"layers.*.mlp.up_proj"``.

    Parameters
    ----------
    name : str
        Name of the layer in its model.
    """
    return re.sub(r"\d+", "*", name)


class Packable(abc.ABC):
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
        if self.matrix.dtype not in (torch.float32, torch.bfloat16):
            return f"weights of {self.matrix.dtype} are not packed"
        return layout.refusal_on(self.device) or layout.refusal(self.matrix)

    @abc.abstractmethod
    def example(self, batch: int) -> Tensor:
        """Return a random input with so many rows or images."""

    def _random(self, *shape: int) -> Tensor:
        numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return numbers.to(self.device, self.matrix.dtype)

    @abc.abstractmethod
    def packed(self, layout: type[Layout]) -> PackedLayer:
        """Return the layer that takes this one's place."""


class _PackableLinear(Packable):
    """A ``torch.nn.Linear``."""

    def __init__(self, module: nn.Linear) -> None:
        super().__init__(module, module.weight.detach(), "linear")

    def example(self, batch: int) -> Tensor:
        """Return rows of inputs."""
        return self._random(batch, self.matrix.shape[1])

    def packed(self, layout: type[Layout]) -> PackedLinear:
        """Return the packed linear layer."""
        assert isinstance(self.module, nn.Linear)
        return PackedLinear.from_linear(self.module, layout)


class _PackableConv(Packable):
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

    def packed(self, layout: type[Layout]) -> PackedConv2d:
        """Return the packed convolution."""
        assert isinstance(self.module, nn.Conv2d)
        return PackedConv2d.from_conv(self.module, layout)


def packable(module: nn.Module, image: tuple[int, int] | None = None) -> Packable:
    """Return a dense layer as packing sees it.

    Parameters
    ----------
    module : nn.Module
        A ``torch.nn.Linear`` or ``torch.nn.Conv2d``.
    image : (int, int), optional
        Height and width of the images that reach a convolution.

    Raises
    ------
    LayerError
        If it is another kind of layer.
    """
    if isinstance(module, nn.Linear):
        return _PackableLinear(module)
    if isinstance(module, nn.Conv2d):
        return _PackableConv(module, image)
    raise LayerError(f"a {type(module).__name__} cannot be packed; Linear and Conv2d can")


def packable_layers(
    model: nn.Module, example: Tensor | None = None
) -> Iterator[tuple[str, Packable]]:
    """Yield the linear layers and convolutions of a model, with their names.

    Parameters
    ----------
    model : nn.Module
        Any module.
    example : Tensor, optional
        An input of the model, from which the sizes of the images that reach convolutions are read.

    Raises
    ------
    LayerError
        If the model does not run on `example`.
    """
    images = {} if example is None else _image_sizes(model, example)
    for name, module in model.named_modules():
        if type(module) in (nn.Linear, nn.Conv2d):
            yield name, packable(module, images.get(name))


def _image_sizes(model: nn.Module, example: Tensor) -> dict[str, tuple[int, int]]:
    """Return height and width of what reaches each convolution, by name."""
    sizes: dict[str, tuple[int, int]] = {}
    handles = []
    for name, module in model.named_modules():
        if type(module) is not nn.Conv2d:
            continue

        def note(module: nn.Module, inputs: Any, name: str = name) -> None:
            sizes[name] = (inputs[0].shape[-2], inputs[0].shape[-1])

        handles.append(module.register_forward_pre_hook(note))
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(example)
    except RuntimeError as error:
        raise LayerError(
            f"the model does not run on the example of shape {tuple(example.shape)} and "
            f"{example.dtype}: {error}"
        ) from error
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return sizes
