"""Convolutions that experiments and benchmarks time, dense and sparse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from thresher.assets.efficientnet_lite import EfficientNetLite0
from thresher.parts.patterns import Pattern
from thresher.run.layouts import RowGroups
from thresher.run.layouts.base import Layout
from thresher.run.layouts.convolution import Geometry, as_matrix
from thresher.run.measure.choice import Choices
from thresher.run.pack import choose_layouts
from thresher.run.packed.conv import PackedConv2d

from ._folding import fold_convolutions, fuse_activations

DENSE = "dense fp32"
LAST = "dense fp32 channels-last"
OWN = "own kernel, density 1"


@dataclass(frozen=True)
class Layer:
    """A dense convolution, stride 1, with images for it."""

    weight: Tensor
    x: Tensor

    @classmethod
    def random(cls, shape: tuple[int, int, int, int], images: int = 1, seed: int = 0) -> Layer:
        """Return random weights and images; `shape` is one of SHAPES."""
        channels, outputs, size, kernel = shape
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(outputs, channels, kernel, kernel, generator=generator)
        return cls(weight, torch.randn(images, channels, size, size, generator=generator))

    @property
    def geometry(self) -> Geometry:
        """Stride 1, padded so that the size stays."""
        kernel = self.weight.shape[2]
        return Geometry((kernel, kernel), padding=(kernel // 2,) * 4)

    def sparse(self, pattern: str, density: float, seed: int = 1) -> Tensor:
        """Return the weight's matrix with only a random support of the pattern kept."""
        parsed = Pattern.parse(pattern)
        matrix = as_matrix(self.weight)
        score = torch.rand(matrix.shape, generator=torch.Generator().manual_seed(seed))
        return matrix * parsed.mask(score, parsed.count(matrix.shape, density))

    def rivals(self) -> dict[str, Callable[[], Tensor]]:
        """Torch's convolution in both orders of memory, and our kernel without zeros."""
        pad = self.geometry.padding[0]
        last = torch.channels_last
        weight, x = self.weight.to(memory_format=last), self.x.to(memory_format=last)
        own = RowGroups.from_dense(as_matrix(self.weight), 4)
        return {
            DENSE: lambda: nn.functional.conv2d(self.x, self.weight, padding=pad),
            LAST: lambda: nn.functional.conv2d(x, weight, padding=pad),
            OWN: lambda: own.convolve(self.x, self.geometry),
        }


@dataclass(frozen=True)
class Networks:
    """One network dense in both orders of memory, in our kernels without zeros, and packed.

    Parameters
    ----------
    functions : dict of str to callable
        Of images, by :data:`DENSE`, :data:`LAST`, :data:`OWN` and ``"packed"``.
    x : Tensor
        An image for them.
    packing : Choices
        Which layouts were chosen.
    difference : float
        Largest difference of the packed network's output to the masked dense one's, relative to
        the largest output.
    """

    functions: dict[str, Callable[[Tensor], Tensor]]
    x: Tensor
    packing: Choices
    difference: float


def packed_efficientnet(density: float, seed: int, repeats: int = 5, size: int = 224) -> Networks:
    """Return EfficientNet-Lite0 with the largest weights of every 1x1 kernel kept."""
    torch.manual_seed(seed)
    x = torch.randn(1, 3, size, size)
    return packed_network(EfficientNetLite0(), x, "unstructured", density, repeats)


@torch.no_grad()
def packed_network(
    model: nn.Module, x: Tensor, pattern: str, density: float, repeats: int = 5
) -> Networks:
    """Keep the largest weights of every 1x1 convolution that a pattern allows, and pack them.

    Weights are random, because time does not depend on them. Batch norms and padding are folded
    in all of the networks.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # else the image fades and biases are left
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    parsed = Pattern.parse(pattern)
    dense = fold_convolutions(model.eval()).requires_grad_(False)
    last, own, sparse = copy.deepcopy(dense), copy.deepcopy(dense), copy.deepcopy(dense)
    last.to(memory_format=torch.channels_last)
    for conv in pointwise(sparse).values():
        matrix = as_matrix(conv.weight)
        mask = parsed.mask(matrix.abs(), parsed.count(matrix.shape, density))
        conv.weight.mul_(mask.reshape(conv.weight.shape))
    expected = sparse(x)
    packing = choose_layouts(sparse, (1,), repeats=repeats, example=x)
    packing.apply(sparse)
    for name, conv in pointwise(own).items():
        own.set_submodule(name, PackedConv2d.from_conv(conv, RowGroups))
    for layer in packing.layers:  # what is dense but in our kernel stays there
        conv = own.get_submodule(layer.name)
        if layer.layout != "dense" and isinstance(conv, nn.Conv2d):
            own.set_submodule(layer.name, PackedConv2d.from_conv(conv, Layout.named(layer.layout)))
    models = {
        DENSE: dense,
        LAST: last,
        OWN: fuse_activations(own),
        "packed": fuse_activations(sparse),
    }

    def run(name: str, images: Tensor) -> Tensor:
        if name == LAST:
            images = images.contiguous(memory_format=torch.channels_last)
        out: Tensor = models[name](images)
        return out

    functions = {name: partial(run, name) for name in models}
    off = float((functions["packed"](x) - expected).abs().max() / expected.abs().max())
    return Networks(functions, x, packing, off)


def pointwise(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the 1x1 convolutions of a model by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Conv2d and module.kernel_size == (1, 1)
    }
