"""Fixtures of the kernels' tests."""

import pytest
from layout_contract import OF_LAYOUTS, SUPPORTED

from thresher.run import _run


@pytest.fixture
def force_isa(monkeypatch):
    """Return a function that holds the kernels to an instruction set until the test ends."""

    def force(name):
        monkeypatch.setenv("THRESHER_ISA", name)
        _run.forget_isa()

    yield force
    monkeypatch.delenv("THRESHER_ISA", raising=False)
    _run.forget_isa()


@pytest.fixture(params=OF_LAYOUTS)
def isa(request, force_isa):
    """Run a test of layouts once on every instruction set that this machine can be held to."""
    force_isa(request.param)
    return request.param


@pytest.fixture(params=SUPPORTED)
def engine_isa(request, force_isa):
    """Run a test of the engine once on every instruction set that this machine can be held to."""
    force_isa(request.param)
    return request.param
