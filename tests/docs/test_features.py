"""The table of features says what the code has, and that no feature of two peers is missing."""

import importlib.util
import inspect
import tomllib
from pathlib import Path

import pytest
from sklearn import linear_model, svm

from thresher import linear

DOCS = Path(__file__).parents[2] / "docs"
DATA = tomllib.loads((DOCS / "features.toml").read_text(encoding="utf-8"))
FEATURES = DATA["feature"]


def resolved(path):
    """Return what a dotted path below the room leads to."""
    found = linear
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature["name"])
def test_what_is_claimed_is_there(feature):
    known = {"group", "name", "thresher", *DATA["peers"]}
    assert set(feature) <= known
    claim = feature.get("thresher")
    if claim is None:
        assert len(set(feature) & set(DATA["peers"])) < 2, "two peers have it: build it"
        return
    if claim.startswith("by "):
        return
    path, _, parameter = claim.partition(":")
    found = resolved(path)
    if parameter:
        assert parameter in inspect.signature(found).parameters
    else:
        assert callable(found)


def test_what_scikit_learn_is_said_to_have_is_there():
    named = [f["scikit-learn"] for f in FEATURES if "scikit-learn" in f]
    models = [name.partition("(")[0].partition(" ")[0].rstrip(",") for name in named]
    found = [n for n in models if hasattr(linear_model, n) or hasattr(svm, n)]
    assert len(found) > 15
    parameters = {p for n in found for p in inspect.signature(_get(n)).parameters}
    for name in set(models) - set(found) - {"PolynomialFeatures", "StandardScaler"}:
        assert name in parameters or name == "sample_weight"


def _get(name):
    return getattr(linear_model, name, None) or getattr(svm, name)


def test_the_page_has_every_feature_and_a_link_to_every_source():
    spec = importlib.util.spec_from_file_location("pages", DOCS / "_ext/generated_pages.py")
    pytest.importorskip("sphinx")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    page = pages.features_page(DOCS / "features.toml")
    for feature in FEATURES:
        assert pages.escape(feature["name"]) in page
    for peer in DATA["peers"].values():
        for source in peer["sources"]:
            assert f"<{source}>" in page
