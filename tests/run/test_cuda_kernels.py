"""The Triton kernels without a device: interpreted, and compiled for devices that are not there."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from layout_contract import DTYPES, as_if_on_cuda, random_weight
from own_process import run_tests

from thresher.core.errors import LayerError
from thresher.run import cuda
from thresher.run.layouts.base import Layout

triton = pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

from triton._utils import canonicalize_dtype  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

#: Bytes of shared memory of a program on devices of compute capability 8.6 and 8.9, the least.
SHARED = 99 * 1024
#: Batch sizes that are launched differently.
BATCHES = (1, 16, 32, 128)
KERNELS = ("multiply_one", "multiply_many")


def test_products_of_interpreted_kernels():
    run_tests("interpreted_kernels.py", TRITON_INTERPRET="1")


class Recorder:
    """Stands in for a kernel and keeps what it was launched with."""

    def __init__(self, kernel):
        self.kernel, self.arguments, self.options = kernel, (), {}

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            self.arguments, self.options = arguments, options

        return launch

    def compile(self, capability: int):
        """The kernel as it was launched, for a device of some compute capability."""
        names = self.kernel.arg_names
        given = dict(zip(names, self.arguments, strict=False)) | self.options
        options = {name: given.pop(name) for name in self.options if name not in names}
        constants = {n: v for n, v in given.items() if v is None or n in self.options}
        signature = {name: kind(value) for name, value in given.items()}
        signature |= dict.fromkeys(constants, "constexpr")
        aligned = {
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(names)
            if name not in constants and not isinstance(given[name], int)
        }
        source = ASTSource(self.kernel, signature, constants, aligned)
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def kind(value) -> str:
    """What Triton calls the type of an argument."""
    if not isinstance(value, torch.Tensor):
        return "i32"
    return f"*{canonicalize_dtype(value.dtype)}"


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["bitmask", "blocks"])
def test_kernels_compile(name, dtype, batch, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels = cuda.kernels(name)
    recorders = [Recorder(getattr(kernels, kernel)) for kernel in KERNELS]
    for kernel, recorder in zip(KERNELS, recorders, strict=True):
        monkeypatch.setattr(kernels, kernel, recorder)
    layout = Layout.named(name)
    packed = layout.from_dense(layout.example(random_weight((64, 256), 0.5, dtype, 0)))
    bias = None if batch == 16 else torch.zeros(64)
    as_if_on_cuda(packed).multiply(torch.zeros(batch, 256, dtype=dtype), bias)
    (launched,) = [recorder for recorder in recorders if recorder.arguments]
    for capability in (80, 90):
        binary = launched.compile(capability)
        assert f".target sm_{capability}" in binary.asm["ptx"]
        assert binary.asm["cubin"].startswith(b"\x7fELF")
        assert binary.metadata.shared <= SHARED
        by_tensor_cores = "mma" in binary.asm["ptx"]
        assert by_tensor_cores == (dtype == torch.bfloat16 and batch > 1)


def test_triton_is_imported_by_the_first_product_only():
    code = "import sys, thresher, thresher.run.layouts; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_triton_the_error_names_the_remedy(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("thresher.run.cuda.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LayerError, match="pip install triton"):
        cuda.kernels("bitmask")
    assert "pip install triton" in cuda.refusal(torch.device("cuda"))


def test_devices_that_kernels_are_for():
    assert cuda.refusal(torch.device("cpu")) is None
    assert cuda.refusal(torch.device("cuda", 1)) is None
    assert cuda.refusal(torch.device("mps")) == "no kernel for mps"
