"""Running the cases and gathering rows of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from thresher.run.layouts.base import Layout
from thresher.run.measure.timing import compare
from thresher.run.packed.sparse_linear import SparseLinear

from .cases import (
    BATCHES,
    BF16,
    CASES,
    CSR,
    FP32,
    INT8,
    SHAPES,
    Case,
    rivals,
    torch_bsr,
    torch_csr,
)

BSR = "torch BSR fp32"
_SPARSE_RIVALS_BELOW = 0.11


def products(repeats: int) -> Iterator[dict[str, Any]]:
    """Yield one row per shape, case and batch size."""
    for shape in SHAPES:
        dense = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        weights = {case: case.weight(dense) for case in CASES}
        packed = {case: case.pack(weight) for case, weight in weights.items()}
        for batch in BATCHES:
            yield from _products_at(dense, weights, packed, batch, repeats)


def _products_at(
    dense: Tensor,
    weights: dict[Case, Tensor],
    packed: dict[Case, Layout],
    batch: int,
    repeats: int,
) -> Iterator[dict[str, Any]]:
    x = torch.randn(batch, dense.shape[1], generator=torch.Generator().manual_seed(batch))
    inputs = {dtype: x.to(dtype) for dtype in (torch.float32, torch.bfloat16)}
    functions: dict[str, Callable[[], Tensor]] = rivals(dense, x)
    for case, layout in packed.items():
        functions[case.label] = lambda layout=layout: layout.matmul(inputs[layout.dtype])
        if case.density < _SPARSE_RIVALS_BELOW and case.layout in ("csr", "fan-in"):
            functions[f"{CSR} {case.label}"] = torch_csr(weights[case], x)
        if case.layout == "blocks":
            functions[f"{BSR} {case.label}"] = torch_bsr(weights[case], x)
    with torch.no_grad():
        compared = compare(functions, repeats)
    for case, layout in packed.items():
        keys = {name: name for name in (BF16, FP32)}
        if case.layout == "int8-4x1":
            keys[INT8] = INT8
        keys |= {name: f"{name} {case.label}" for name in (CSR, BSR)}
        against = {n: compared.best(key) for n, key in keys.items() if key in compared.seconds}
        own = compared.best(case.label)
        ratios = {name: seconds / own for name, seconds in against.items()}
        targets = {r: t for (r, at), t in case.targets.items() if at == batch}
        yield {
            "case": case.label,
            "layout": case.layout,
            "pattern": case.pattern,
            "density": case.density,
            "dtype": str(case.dtype).removeprefix("torch."),
            "shape": list(dense.shape),
            "batch": batch,
            "seconds": own,
            "seconds_median": compared.median(case.label),
            "rival_seconds": against,
            "ratios": ratios,
            "bytes": layout.nbytes,
            "bytes_of_dense_bf16": layout.nbytes / (2 * dense.numel()),
            "targets": targets,
            "missed_by": {r: t - ratios[r] for r, t in targets.items() if ratios[r] < t},
            "noise": compared.noise,
        }


def training(repeats: int) -> Iterator[dict[str, Any]]:
    """Yield one row per density: forward and backward at 2048 x 2048, batch 128, float32."""
    size, batch = 2048, 128
    targets = {0.1: 2.0, 0.05: 4.0, 0.02: 8.0}
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, size, generator=generator).requires_grad_()
    grad = torch.randn(batch, size, generator=generator)

    def step(layer: nn.Module) -> None:
        layer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x).backward(grad)

    for density, target in targets.items():
        sparse = SparseLinear(size, size, density, generator=generator)
        layers = {FP32: nn.Linear(size, size), "thresher": sparse}
        if (peer := _sparseprop(sparse)) is not None:
            layers["sparseprop"] = peer
        compared = compare({n: lambda m=m: step(m) for n, m in layers.items()}, repeats)
        own = compared.best("thresher")
        against = {name: compared.best(name) for name in layers if name != "thresher"}
        ratio = against[FP32] / own
        yield {
            "case": f"training {density:g} float32",
            "density": density,
            "shape": [size, size],
            "batch": batch,
            "seconds": own,
            "rival_seconds": against,
            "ratios": {name: seconds / own for name, seconds in against.items()},
            "targets": {FP32: target},
            "missed_by": {} if ratio >= target else {FP32: target - ratio},
            "noise": compared.noise,
        }


def _sparseprop(layer: SparseLinear) -> nn.Module | None:
    """Return the same layer of the SparseProp authors' own library, where it is installed."""
    try:
        from sparseprop.modules import SparseLinear as Peer
    except ImportError:
        return None
    return Peer(layer.to_dense(), nn.Parameter(layer.bias.detach().clone()))
