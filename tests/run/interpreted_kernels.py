"""The Triton kernels in Triton's interpreter, on tensors of the CPU, against float64.

``test_cuda_kernels.py`` runs this file in a process of its own: Triton reads TRITON_INTERPRET as it
is imported.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from layout_contract import (
    DTYPES,
    as_if_on_cuda,
    one_thread,  # noqa: F401
    random_weight,
    tolerance,
)
from triton import language as tl
from triton.runtime import interpreter

from thresher.run import cuda
from thresher.run.layouts.base import Layout

SHAPES = [(0, 8), (8, 0), (1, 1), (3, 7), (17, 33), (40, 256), (37, 513), (20, 2051)]
DENSITIES = (0.0, 0.1, 0.5, 0.9, 1.0)
BATCHES = (0, 1, 3, 16, 33)


@pytest.fixture(autouse=True, scope="module")
def bfloat16_in_dots():
    """Repair the interpreter, which multiplies the bits of bfloat16 matrices as integers."""

    def as_float32(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    builder = interpreter.InterpreterBuilder
    before = builder.create_dot

    def create_dot(self, a, b, *rest):
        return before(self, as_float32(a), as_float32(b), *rest)

    builder.create_dot = create_dot
    yield
    builder.create_dot = before


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["bitmask", "blocks"])
def test_products_equal_float64(name, shape):
    layout = Layout.named(name)
    generator = torch.Generator().manual_seed(0)
    for seed, (density, dtype) in enumerate(itertools.product(DENSITIES, DTYPES)):
        weight = layout.example(random_weight(shape, density, dtype, seed))
        packed = as_if_on_cuda(layout.from_dense(weight))
        for batch in BATCHES[seed // 2 % 2 :: 2]:
            x = torch.randn(batch, shape[1], generator=generator).to(dtype)
            bias = torch.randn(shape[0], generator=generator) if (seed + batch) % 3 else None
            out = packed.multiply(x, bias)
            assert (out.dtype, out.shape) == (dtype, (batch, shape[0]))
            exact, allowed = x.double() @ weight.double().T, tolerance(x, weight)
            if bias is not None:
                exact = exact + bias
                allowed = allowed + (exact.abs() + bias.abs()) * torch.finfo(dtype).eps
            error = (out.double() - exact).abs()
            assert bool((error <= allowed).all()), (density, dtype, batch, float(error.max()))


def test_chunk_starts_count_the_ones_before():
    kept = torch.rand(5, 700, generator=torch.Generator().manual_seed(0)) < 0.3
    packed = Layout.named("bitmask").from_dense(kept.float())
    starts = cuda.kernels("bitmask").chunk_starts(packed.tensors()["bitmask"])
    assert starts.shape == (5, 6)
    flat = kept.flatten()
    for row, chunk in itertools.product(range(5), range(6)):
        assert starts[row, chunk] == int(flat[: row * 700 + chunk * 128].sum())


def test_a_value_on_the_support_may_be_zero():
    layout = Layout.named("bitmask")
    tensors = layout.from_dense(torch.ones(3, 40)).tensors()
    tensors["values"][5:90] = 0
    packed = as_if_on_cuda(layout.from_tensors(tensors, (3, 40), {}))
    out = packed.multiply(torch.ones(1, 40), None)
    assert out.tolist() == [[5.0, 0.0, 30.0]]
