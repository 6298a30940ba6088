"""Sparse backpropagation against dense, forward and backward of one layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from thresher.core.evidence import Experiment, Outcome
from thresher.run.measure.timing import compare
from thresher.run.packed.sparse_linear import SparseLinear

from .. import _models as models
from .._plots import lines

_DENSITIES = (0.2, 0.1, 0.05, 0.02)
_CLAIMED = 0.1
_TOLERANCE = 1e-4


def _speedup(size: int, density: float, seed: int) -> tuple[float, float, bool]:
    """Return dense over sparse time, the largest error of a gradient, and if it was noisy."""
    torch.manual_seed(seed)
    sparse = SparseLinear(size, size, density)
    dense = nn.Linear(size, size)
    dense.weight.data = sparse.to_dense()
    dense.bias.data = sparse.bias.detach().clone()
    x = torch.randn(128, size, requires_grad=True)
    grad = torch.randn(128, size)

    def step(layer: nn.Module) -> None:
        x.grad = None
        layer.zero_grad(set_to_none=True)
        layer(x).backward(grad)

    compared = compare({"dense": lambda: step(dense), "sparse": lambda: step(sparse)}, 9)
    step(dense)
    at = (sparse.support.rows, sparse.support.columns)
    expected, expected_input = dense.weight.grad[at], x.grad
    step(sparse)
    errors = [
        float((found - right).abs().max() / right.abs().max())
        for found, right in ((sparse.values.grad, expected), (x.grad, expected_input))
    ]
    return compared.best("dense") / compared.best("sparse"), max(errors), compared.noisy


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    size = models.amount(2048, scale, 128)
    table, noisy = [], False
    for density in _DENSITIES:
        found = [_speedup(size, density, seed) for seed in seeds]
        noisy |= any(busy for _, _, busy in found)
        table.append(
            {
                "density": density,
                "speedup": float(np.median([ratio for ratio, _, _ in found])),
                "worst_gradient_error": max(error for _, error, _ in found),
            }
        )
    exact = all(row["worst_gradient_error"] < _TOLERANCE for row in table)
    margin = min(row["speedup"] for row in table if row["density"] <= _CLAIMED) - 1
    summary = (
        f"Forward and backward of a {size} x {size} layer, batch 128, float32: "
        + ", ".join(f"{row['speedup']:.1f}x dense at density {row['density']}" for row in table)
        + f". The claim holds if it is above 1 from density {_CLAIMED} down and the gradients "
        f"agree with dense ones to {_TOLERANCE:g}; the margin is the least of these less 1."
    )
    if noisy:
        summary += " The machine was busy while this was measured."
    figure = lines(
        [row["density"] for row in table],
        {"sparse": [row["speedup"] for row in table], "dense": [1.0] * len(table)},
        title="Forward and backward time, dense over sparse",
        x_title="density",
        y_title="speedup",
        log_y=True,
    )
    return Outcome(exact and margin > 0, margin, summary, table, figure)


experiment = Experiment(
    method="sparseprop",
    claim="Backpropagation that visits survivors only is faster than dense on ordinary "
    "processors, for unstructured sparsity, with the same gradients.",
    baseline="torch.nn.Linear in float32 with the same weights, same threads, same run",
    run=_run,
)
