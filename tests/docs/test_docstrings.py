"""Docstrings describe the parameters that are there."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import thresher

numpydoc_validate = pytest.importorskip("numpydoc.validate")

# No docstring; parameters that do not exist; parameters in another order.
_CHECKED = {"GL08", "PR02", "PR03"}


def _modules() -> list[str]:
    root = str(Path(thresher.__file__).parent)
    names = (module.name for module in pkgutil.walk_packages([root], "thresher."))
    return [name for name in names if "._" not in name and not name.startswith("thresher.evidence")]


@pytest.mark.parametrize("name", _modules())
def test_documented_parameters_are_the_real_ones(name):
    module = importlib.import_module(name)
    public = [
        member
        for member in getattr(module, "__all__", ())
        if inspect.isclass(found := getattr(module, member)) or inspect.isfunction(found)
    ]
    errors = [
        f"{member}: {message}"
        for member in public
        for code, message in numpydoc_validate.validate(f"{name}.{member}")["errors"]
        if code in _CHECKED
    ]
    assert not errors
