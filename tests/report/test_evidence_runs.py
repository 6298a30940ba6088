"""Several experiments in one command: what fails does not take the others along."""

import pytest

from thresher.core.errors import DataError, ThresherError
from thresher.report import methods


@pytest.fixture(params=[DataError, RuntimeError])
def ran(request, monkeypatch):
    """Stand in for experiments, of which "broken" fails; return what was printed as results."""
    printed = []

    def execute(name, scale, seeds, folder):
        if name == "broken":
            raise request.param("nothing to merge")
        return {"method": name, "seconds": 1.0}

    monkeypatch.setattr(methods, "execute", execute)
    monkeypatch.setattr(methods, "print_evidence", lambda result: printed.append(result["method"]))
    return printed


def test_the_others_run_and_those_that_failed_are_named(ran, tmp_path, capsys):
    with pytest.raises(ThresherError, match=r"1 of 3 experiments failed: broken; .*broken -v"):
        methods.run_evidence(["lamp", "broken", "owl"], 1.0, None, tmp_path)
    assert ran == ["lamp", "owl"]
    assert "('nothing to merge')" in capsys.readouterr().err


def test_one_alone_fails_as_it_is(ran, tmp_path):
    with pytest.raises((DataError, RuntimeError), match="nothing to merge"):
        methods.run_evidence(["broken"], 1.0, None, tmp_path)
