"""Memory that runs short while threads multiply is an exception, not the end of the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHORT = """
import resource, torch
from thresher.run.layouts.base import Layout
torch.set_num_threads(2)
weight = torch.zeros(64, 60_000)
weight[:, ::1000] = 1
packed = Layout.named("csr").from_dense(weight)
small = Layout.named("csr").from_dense(torch.eye(64))
x, out = torch.ones(256, 60_000), torch.empty(256, 64)
small.matmul(torch.ones(256, 64))  # the threads are there, and hold little
def multiply():
    packed._matrix.multiply(x.data_ptr(), 256, out.data_ptr(), 0, 2)
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[0])
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), before[1]))
try:
    multiply()
    print("nothing was short")
except MemoryError:
    print("MemoryError")
resource.setrlimit(resource.RLIMIT_AS, before)
multiply()
print("again", bool((out == 60).all()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_an_exception_in_a_thread_reaches_the_caller():
    ran = subprocess.run([sys.executable, "-c", SHORT], capture_output=True, text=True, timeout=120)
    assert ran.stdout.split() == ["MemoryError", "again", "True"], (ran.returncode, ran.stderr)
