"""Fixtures of the kernels' tests."""

import pytest
from layout_contract import SUPPORTED


@pytest.fixture(params=SUPPORTED)
def isa(request, monkeypatch):
    """Run a test once on every instruction set that this machine can be held to."""
    monkeypatch.setenv("THRESHER_ISA", request.param)
    return request.param
