"""Sparse convolutions beside torch's dense ones: layers, a network, and training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from thresher.evidence.convolutions import DENSE, LAST, OWN, Layer, packed_efficientnet
from torch import Tensor, nn

from thresher.run.layouts.registry import named_layout
from thresher.run.measure.timing import Comparison, compare
from thresher.run.packed.sparse_conv import SparseConv2d

#: In channels, out channels, height and width, kernel: the 1x1 layers of MobileNet-v1, and 3x3.
SHAPES = (
    (64, 64, 56, 1),
    (64, 128, 56, 1),
    (128, 128, 56, 1),
    (128, 256, 28, 1),
    (256, 256, 28, 1),
    (256, 512, 14, 1),
    (512, 512, 14, 1),
    (512, 1024, 7, 1),
    (1024, 1024, 7, 1),
    (64, 64, 56, 3),
    (128, 128, 28, 3),
    (256, 256, 14, 3),
)
#: Layout, pattern and density.
CASES = (
    ("csr", "unstructured", 0.2),
    ("csr", "unstructured", 0.1),
    ("row-groups", "4x1", 0.2),
    ("row-groups", "4x1", 0.1),
    ("row-groups", "4x1", 0.7),
)
_TARGETS = {0.2: 1.5, 0.1: 2.3}
NETWORK_DENSITY, NETWORK_TARGET = 0.2, 1.3
TRAINING_SHAPES = ((128, 128, 28, 3), (256, 256, 14, 1))
TRAINING_DENSITIES = (0.1, 0.05)


def layers(repeats: int) -> Iterator[dict[str, Any]]:
    """Yield one row per shape and case, for one image."""
    for shape in SHAPES:
        layer = Layer.random(shape)
        packed = {case: named_layout(case[0]).from_dense(layer.sparse(*case[1:])) for case in CASES}
        functions: dict[str, Callable[[], Tensor]] = layer.rivals()
        rivals = tuple(functions)
        for case, layout in packed.items():
            functions[str(case)] = partial(layout.convolve, layer.x, layer.geometry)
        with torch.no_grad():
            compared = compare(functions, repeats, touched=layer.x)
        for case, layout in packed.items():
            name, pattern, density = case
            target = _TARGETS.get(density) if shape[3] == 1 else None
            yield _row(
                f"conv {shape[3]}x{shape[3]} {name} {pattern} {density:g} float32",
                str(case),
                compared,
                rivals,
                dict.fromkeys((DENSE, LAST), target) if target else {},
                layout=name,
                pattern=pattern,
                density=density,
                shape=list(shape[:3]),
                batch=1,
                bytes=layout.nbytes,
                bytes_of_dense_bf16=layout.nbytes / (2 * layer.weight.numel()),
            )


def network(repeats: int) -> Iterator[dict[str, Any]]:
    """Yield the row of EfficientNet-Lite0 with its 1x1 kernels sparse, one image of 224 x 224."""
    networks = packed_efficientnet(NETWORK_DENSITY, seed=0)
    with torch.no_grad():
        compared = compare(
            {name: partial(run, networks.x) for name, run in networks.functions.items()},
            repeats,
            cold=False,
        )
    target = dict.fromkeys((DENSE, LAST), NETWORK_TARGET)
    chosen = {layer.name: layer.layout for layer in networks.packing.layers}
    yield _row(
        f"EfficientNet-Lite0 {NETWORK_DENSITY:g} float32",
        "packed",
        compared,
        (DENSE, LAST, OWN),
        target,
        density=NETWORK_DENSITY,
        shape=[3, 224, 224],
        batch=1,
        layouts=chosen,
    )


def training(repeats: int) -> Iterator[dict[str, Any]]:
    """Yield one row per layer and density: forward and backward of 16 images."""
    for shape in TRAINING_SHAPES:
        channels, outputs, size, kernel = shape
        layer = Layer.random(shape, images=16)
        x = layer.x.requires_grad_()
        grad = torch.randn(16, outputs, size, size)
        for density in TRAINING_DENSITIES:
            generator = torch.Generator().manual_seed(0)
            padding = kernel // 2
            sparse = SparseConv2d(
                channels, outputs, kernel, padding=padding, density=density, generator=generator
            )
            dense = nn.Conv2d(channels, outputs, kernel, padding=padding)
            steps = {
                DENSE: partial(_step, dense, x, grad),
                "thresher": partial(_step, sparse, x, grad),
            }
            yield _row(
                f"conv {kernel}x{kernel} training {density:g} float32",
                "thresher",
                compare(steps, repeats, touched=x),
                (DENSE,),
                {},
                density=density,
                shape=list(shape[:3]),
                batch=16,
            )


def _step(layer: nn.Module, x: Tensor, grad: Tensor) -> None:
    layer.zero_grad(set_to_none=True)
    x.grad = None
    layer(x).backward(grad)


def _row(
    label: str,
    key: str,
    compared: Comparison,
    rivals: tuple[str, ...],
    targets: Mapping[str, float | None],
    **facts: Any,
) -> dict[str, Any]:
    own = compared.best(key)
    against = {name: compared.best(name) for name in rivals}
    ratios = {name: seconds / own for name, seconds in against.items()}
    return {
        "case": label,
        "dtype": "float32",
        "seconds": own,
        "seconds_median": compared.median(key),
        "rival_seconds": against,
        "ratios": ratios,
        "targets": dict(targets),
        "missed_by": {r: t - ratios[r] for r, t in targets.items() if t and ratios[r] < t},
        "noise": compared.noise,
        **facts,
    }


COUNT = len(SHAPES) * len(CASES) + 1 + len(TRAINING_SHAPES) * len(TRAINING_DENSITIES)


def rows(repeats: int) -> Iterator[dict[str, Any]]:
    """Yield all rows of this file."""
    yield from layers(repeats)
    yield from network(repeats)
    yield from training(repeats)
