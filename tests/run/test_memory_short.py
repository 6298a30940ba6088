"""Memory that runs short while threads multiply is an exception, not the end of the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHORT = """
import resource, torch
from thresher.run.layouts.base import Layout
torch.set_num_threads(2)
kind, columns = Layout.named("bitmask"), 1 << 20
weight = torch.zeros(64, columns)
weight[:, ::1000] = 1
packed, x, out = kind.from_dense(weight), torch.ones(1, columns), torch.empty(1, 64)
# The threads are there, and so is what the caller takes before they start; for four rows at a
# time each of them then needs more.
kind.from_dense(torch.eye(64)).matmul(torch.ones(1, 64))
kind.from_dense(weight[:1]).matmul(x)
def multiply():
    packed._matrix.multiply(x.data_ptr(), 1, out.data_ptr(), 0, 2)
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[0])
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), before[1]))
found = "nothing was short"
try:
    # On a busy machine the caller may have done everything before the other thread wakes.
    for _ in range(200):
        multiply()
except MemoryError:
    found = "MemoryError"
print(found)
resource.setrlimit(resource.RLIMIT_AS, before)
multiply()
print("again", bool((out == 1049).all()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_an_exception_in_a_thread_reaches_the_caller():
    # Large pieces come from the system and go back to it, so that no room is left of earlier ones.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    ran = subprocess.run(
        [sys.executable, "-c", SHORT],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert ran.stdout.split() == ["MemoryError", "again", "True"], (ran.returncode, ran.stderr)
