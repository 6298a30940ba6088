"""What every layout must do, for each registered class and for users' own ones."""

from __future__ import annotations

import pytest
import torch

from thresher.run import _run
from thresher.run.layouts.base import Layout

SHAPES = [(0, 8), (8, 0), (1, 1), (1, 32), (3, 7), (17, 33), (40, 100), (37, 513)]
BATCHES = (0, 1, 2, 5, 8, 13, 16, 33, 70)
DENSITIES = (0.0, 0.1, 0.5, 1.0)
ISAS = ("portable", "avx2", "avx512", "avx512bf16", "amx")
SUPPORTED = ISAS[: ISAS.index(_run.detected_isa()) + 1]
"""The instruction sets that can be forced on this processor."""
OF_LAYOUTS = tuple(isa for isa in SUPPORTED if isa != "amx")
"""Those with kernels of layouts of their own: the tiles of AMX serve the engine alone."""
ROUNDING = 0.1
"""What a layout that rounds may lose of a random matrix, relative to its norm."""
DTYPES = (torch.float32, torch.bfloat16)


def random_weight(
    shape: tuple[int, int], density: float, dtype: torch.dtype, seed: int
) -> torch.Tensor:
    """A random matrix with about `density` survivors."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator)
    keep = torch.rand(shape, generator=generator) < density
    return (weight * keep).to(dtype)


def tolerance(x: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """Bound on the rounding of sums in float32 and of outputs to the dtype, per output.

    Sums of n products carry an error of at most n * eps * sum(|x| |w|); one eighth of that is
    already generous for sums taken in blocks.
    """
    magnitude = x.double().abs() @ dense.double().abs().T
    columns = max(8, dense.shape[1])
    accumulated = columns / 8 * torch.finfo(torch.float32).eps
    rounded = torch.finfo(x.dtype).eps
    return magnitude * accumulated + (x.double() @ dense.double().T).abs() * rounded + 1e-30


def check_product(layout: Layout, x: torch.Tensor, bias: torch.Tensor | None) -> None:
    """The product equals the float64 one of the matrix that the layout holds."""
    dense = layout.to_dense()
    expected = x.double() @ dense.double().T
    allowed = tolerance(x, dense)
    if not layout.exact:  # the kernel need not round the weights as to_dense() does
        allowed = allowed + x.double().abs() @ dense.double().abs().T * torch.finfo(x.dtype).eps
    if layout.input_levels is not None:  # each input is off by at most half a level
        padded = torch.nn.functional.pad(x.double().abs(), (0, 1))
        half_level = padded.amax(1, keepdim=True) / layout.input_levels / 2
        allowed = allowed + half_level * dense.double().abs().sum(1)
    if bias is not None:
        expected = expected + bias.double()
        allowed = allowed + (expected.abs() + bias.double().abs()) * torch.finfo(x.dtype).eps
    out = layout.matmul(x, bias)
    assert out.dtype == x.dtype
    assert out.shape == expected.shape
    error = (out.double() - expected).abs()
    assert bool((error <= allowed).all()), (
        f"{layout!r}, batch {x.shape[0]}: error {float(error.max()):.3g}"
    )


def check_kept(packed: Layout, weight: torch.Tensor) -> None:
    """The matrix is the one that it was made from; where it was rounded, near it."""
    dense = packed.to_dense()
    if packed.exact:
        assert torch.equal(dense, weight)
        return
    assert not bool(dense[weight == 0].any()), "a removed weight came back"
    error = (dense.double() - weight.double()).norm()
    # Four bits leave 0.07 of a normal matrix: a step is 0.24 of its spread, over sqrt(12).
    assert float(error) <= ROUNDING * float(weight.double().norm())


def check_round_trips(layout_class: type[Layout], weight: torch.Tensor) -> Layout:
    """Dense -> packed -> tensors -> packed -> dense loses nothing the layout promises to keep."""
    packed = layout_class.from_dense(weight)
    assert packed.shape == tuple(weight.shape)
    assert packed.dtype == weight.dtype
    check_kept(packed, weight)
    again = layout_class.from_tensors(packed.tensors(), packed.shape, packed.settings)
    assert again.dtype == packed.dtype
    assert torch.equal(again.to_dense(), packed.to_dense())
    assert packed.nbytes == sum(t.numel() * t.element_size() for t in packed.tensors().values())
    return again


def as_if_on_cuda(layout: Layout) -> Layout:
    """The same matrix, which takes its buffers on the CPU for ones on a CUDA device.

    Its :meth:`multiply` then launches the kernels for CUDA, which can be interpreted or recorded.
    """
    twin = layout.from_tensors(layout.tensors(), layout.shape, layout.settings)
    twin._device = torch.device("cuda")
    return twin


@pytest.fixture(autouse=True)
def one_thread():
    """References are computed on one thread; tests of threading ask for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
