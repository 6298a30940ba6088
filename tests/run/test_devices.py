"""Layouts can be moved to devices, also to those that they have no kernel for."""

from __future__ import annotations

import pytest
from own_process import run_tests
from torch.utils import backend_registration


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch cannot be told of a device in Python",
)
def test_layouts_on_another_device():
    run_tests("on_other_device.py")
