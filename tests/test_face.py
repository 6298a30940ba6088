"""The package's face: the names that a user, an editor and a notebook see."""

import copy
import importlib.metadata
import inspect
import pickle
import subprocess
import sys

import pytest
from joblib import Parallel, delayed
from torch import nn

import thresher as th
from thresher.core.errors import OptionError


def test_the_verb_is_a_function_whatever_is_imported():
    code = """
import inspect, thresher as th
import thresher.prune.recipe
from thresher.prune import record
from thresher import prune
assert inspect.isfunction(th.prune) and prune is th.prune
assert "density" in inspect.signature(th.prune).parameters
assert "Parameters" in inspect.getdoc(th.prune)
assert thresher.prune.recipe.Recipe is th.Recipe and th.prune.record is record
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_functions_that_mention_the_package_go_to_other_processes():
    """As joblib, Dask and Ray send them: with what they mention."""
    version = Parallel(n_jobs=2)(delayed(lambda _: th.__version__)(each) for each in range(2))
    assert version == [th.__version__] * 2
    assert pickle.loads(pickle.dumps(th)) is th
    assert copy.deepcopy({"package": th})["package"] is th


def test_the_version_is_the_installed_one():
    assert th.__version__ == importlib.metadata.version("thresher")
    assert not hasattr(th, "__versions__")


def test_the_verb_can_be_pickled_and_has_the_documented_parameters():
    assert pickle.loads(pickle.dumps(th.prune)) is th.prune
    names = set(inspect.signature(th.prune).parameters)
    assert {"model", "method", "data", "density", "sparsity", "exclude"} <= names


def test_sparsity_in_python():
    model = nn.Sequential(nn.Linear(10, 10))
    assert th.prune(model, "magnitude", sparsity=0.7, progress=False).density == 0.3
    pattern = th.patterns.NM(3, 10)
    assert th.prune(model, "magnitude", sparsity=0.7, pattern=pattern, progress=False).density
    with pytest.raises(OptionError, match="drop one of the two"):
        th.prune(model, "magnitude", sparsity=0.7, density=0.3)
    for wrong in (1, -0.1, 70, float("nan"), "half"):
        with pytest.raises(OptionError, match="share of weights to remove"):
            th.prune(model, "magnitude", sparsity=wrong)


@pytest.mark.parametrize("wrong", [50, "half", {"x": 0.5}, float("nan")])
def test_what_is_no_density(wrong):
    with pytest.raises(OptionError, match="share of weights to keep") as error:
        th.prune(nn.Sequential(nn.Linear(8, 8)), "magnitude", density=wrong)
    assert ("did you mean 0.5?" in str(error.value)) == (wrong == 50)


def test_the_verb_may_be_replaced_and_comes_back(monkeypatch):
    verb = th.prune
    with monkeypatch.context() as patched:
        patched.setattr(th, "prune", len)
        assert th.prune([1, 2]) == 2
    assert th.prune is verb
