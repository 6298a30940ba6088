"""Declared imports, the lock, the lowest versions, and the warning of one newer than the tested."""

import ast
import re
import subprocess
import sys
import tomllib
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from thresher.core import versions
from thresher.core.tested import TESTED

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "requirements"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def declared(*extras: str) -> list[Requirement]:
    lines = [*PYPROJECT["project"]["dependencies"], *(x for e in extras for x in EXTRAS[e])]
    found = [Requirement(line) for line in lines]
    # An extra may stand for others of this very project.
    return [each for each in found if each.name != PYPROJECT["project"]["name"]]


def pins(name: str) -> dict[str, Version]:
    text = (FOLDER / name).read_text() + (FOLDER / "torch.txt").read_text()
    found = re.findall(r"^([a-z0-9-]+)==([^\s;]+)", text, re.MULTILINE)
    return {key: Version(version) for key, version in found}


def imported(*folders: str) -> set[str]:
    """Return the modules of others that files in these folders import, wherever they do."""
    found = set()
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    return found - {*sys.stdlib_module_names, "_typeshed", "thresher"}


#: Imported where they are there: a rival to be timed, and what torch's builds for CUDA bring.
UNDECLARED = {"llama_cpp", "triton"}


def test_what_is_imported_is_declared():
    brought = declared(*(extra for extra in EXTRAS if extra not in ("docs", "test")))
    names = {canonicalize_name(requirement.name) for requirement in brought}
    # What is not installed here is spelled as its distribution is, but for hyphens.
    distributions = metadata.packages_distributions()
    modules = imported("thresher", "evidence") - UNDECLARED
    assert {"joblib", "huggingface_hub", "onnx"} < modules
    missing = {
        module
        for module in modules
        if not names & {canonicalize_name(d) for d in distributions.get(module, [module])}
    }
    assert not missing


def test_linear_models_import_what_every_installation_has():
    names = {canonicalize_name(requirement.name) for requirement in declared()}
    distributions = metadata.packages_distributions()
    modules = imported("thresher/solve", "thresher/linear/penalised", "thresher/linear/greedy")
    assert "joblib" in modules
    # Charts are drawn where matplotlib is there.
    for module in modules - {"matplotlib"}:
        assert names & {canonicalize_name(d) for d in distributions[module]}, module


def test_the_lock_has_what_the_project_declares():
    locked = pins("lock.txt")
    build = [Requirement(line) for line in PYPROJECT["build-system"]["requires"]]
    unlocked = PYPROJECT["tool"]["thresher"]["unlocked"]
    assert not set(unlocked) - EXTRAS.keys()
    for requirement in [*build, *declared(*(extra for extra in EXTRAS if extra not in unlocked))]:
        assert locked[requirement.name] in requirement.specifier, "run `make lock`"


def test_the_lowest_versions_are_the_declared_ones():
    lowest = pins("lowest.txt")
    fixed = {"torch", "triton"}  # no older torch has a CPU build on the registry
    for requirement in declared("torch", "assets", "test"):
        assert lowest[requirement.name] in requirement.specifier
        if requirement.name not in fixed:
            (floor,) = requirement.specifier
            assert lowest[requirement.name] == Version(floor.version), "run `make lock`"


def test_the_demonstration_has_the_same_versions_and_what_it_needs():
    shown, locked = pins("demo.txt"), pins("lock.txt")
    assert {name: locked.get(name) for name in shown} == shown, "run `make lock`"
    for requirement in declared("torch", "report", "assets", "gguf"):
        assert requirement.name in shown, "run `make lock`"
    assert len(shown) < 0.6 * len(locked)


@pytest.mark.parametrize("name", ["lock.txt", "demo.txt", "lowest.txt"])
def test_every_version_has_its_hashes_and_no_address(name):
    text = (FOLDER / name).read_text()
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 50
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert not re.search(r"^(torch|nvidia|cuda)\b", text, re.MULTILINE)


def test_the_tested_versions_are_those_of_the_lock():
    locked = pins("lock.txt")
    assert sorted(TESTED) == PYPROJECT["tool"]["thresher"]["watched"]
    for name, version in TESTED.items():
        assert str(locked["scikit-learn" if name == "sklearn" else name]) == version


@pytest.mark.parametrize(
    ("version", "warned"),
    [("2.13.0", 0), ("2.13.0+cpu", 0), ("2.6.0", 0), ("2.13.1", 1), ("2.14.0a0+git", 1), ("?", 1)],
)
def test_only_newer_versions_are_named(monkeypatch, version, warned):
    monkeypatch.setitem(TESTED, "torch", "2.13.0")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        versions._compare(SimpleNamespace(__name__="torch", __version__=version))
    texts = [str(w.message) for w in caught]
    assert len(texts) == warned
    assert all(f"torch {version} is newer than 2.13.0" in text for text in texts)


@pytest.mark.parametrize(
    ("first", "then"), [("thresher", "transformers"), ("transformers", "thresher")]
)
def test_a_newer_library_is_named_once_whoever_is_imported_first(tmp_path, first, then):
    (tmp_path / "transformers.py").write_text('__version__ = "99.0"\n')
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"import {first}; print('then', file=sys.stderr); import {then}, thresher, transformers"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, _, after = ran.stderr.partition("then")
    assert before == ""
    assert after.count("transformers 99.0 is newer than") == 1


def test_the_citation_names_this_version():
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = PYPROJECT["project"]
    assert (said["version"], said["license"]) == (project["version"], project["license"])
    assert said["authors"] == project["authors"]
