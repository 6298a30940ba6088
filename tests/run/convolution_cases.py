"""Shapes of convolutions, and their float64 reference."""

from __future__ import annotations

import math

import torch
from torch import nn

from thresher.run.layouts.convolution import Geometry

# channels, outputs, images, height, width, kernel, stride, padding, dilation, groups
SHAPES = [
    (1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (8, 12, 1, 7, 7, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (5, 8, 3, 7, 9, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (3, 4, 2, 33, 31, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (3, 4, 2, 9, 8, (1, 1), (2, 2), (0, 0), (1, 1), 1),
    (4, 8, 1, 5, 6, (1, 1), (1, 1), (1, 2), (1, 1), 1),
    (6, 4, 2, 9, 11, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (3, 16, 2, 17, 14, (3, 3), (2, 2), (1, 1), (1, 1), 1),
    (6, 4, 2, 19, 11, (5, 3), (2, 3), (2, 0), (2, 1), 2),
    (2, 4, 1, 9, 90, (2, 4), (3, 2), (0, 1), (1, 3), 1),
    (16, 16, 2, 10, 10, (3, 3), (1, 1), (1, 1), (1, 1), 16),
    (8, 16, 1, 15, 15, (5, 5), (2, 2), (2, 2), (1, 1), 8),
    (4, 4, 1, 3, 3, (3, 3), (1, 1), (4, 4), (1, 1), 1),
    (2, 3, 1, 40, 130, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (0, 4, 2, 5, 5, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (4, 0, 2, 5, 5, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (4, 4, 0, 5, 5, (3, 3), (1, 1), (1, 1), (1, 1), 1),
]
DENSITIES = (0.0, 0.2, 1.0)


def sparse_case(shape, density, seed=0):
    """A dense weight with zeros, images, a bias and the geometry of one of SHAPES."""
    channels, outputs, images, height, width, kernel, stride, padding, dilation, groups = shape
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, channels // groups, *kernel, generator=generator)
    weight *= torch.rand(weight.shape, generator=generator) < density
    x = torch.randn(images, channels, height, width, generator=generator)
    around = (padding[0], padding[0], padding[1], padding[1])
    geometry = Geometry(kernel, stride, around, dilation, groups)
    return weight, x, torch.randn(outputs, generator=generator), geometry


def reference(weight, x, bias, geometry):
    """The convolution in float64 by unfolding, and the sum of magnitudes that bounds its error."""
    top, bottom, left, right = geometry.padding
    padded = nn.functional.pad(x.double(), (left, right, top, bottom))
    size = geometry.output_size(*x.shape[2:])
    outputs, inputs = weight.shape[0], weight.shape[1]
    results = []
    for values, images in ((weight.double(), padded), (weight.double().abs(), padded.abs())):
        total = torch.zeros(x.shape[0], outputs, *size, dtype=torch.float64)
        for i in range(geometry.kernel[0]):
            for j in range(geometry.kernel[1]):
                rows = [i * geometry.dilation[0] + geometry.stride[0] * r for r in range(size[0])]
                columns = [
                    j * geometry.dilation[1] + geometry.stride[1] * c for c in range(size[1])
                ]
                taken = images[:, :, rows][:, :, :, columns]
                for o in range(outputs):
                    start = o // (outputs // geometry.groups) * inputs
                    part = taken[:, start : start + inputs]
                    total[:, o] += torch.einsum("ncij,c->nij", part, values[o, :, i, j])
        results.append(total)
    return results[0] + bias.double()[:, None, None], results[1]


def check_close(out, weight, x, bias, geometry, low=-math.inf, high=math.inf):
    exact, magnitude = reference(weight, x, bias, geometry)
    eps = torch.finfo(x.dtype).eps
    allowed = magnitude * weight[0:1].numel() / 8 * torch.finfo(torch.float32).eps
    allowed = allowed + exact.abs() * eps + bias.double().abs()[:, None, None] * eps + 1e-6
    assert out.shape == exact.shape
    assert bool(((out.double() - exact.clamp(low, high)).abs() <= allowed).all())
