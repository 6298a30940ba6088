"""The catalogue and its index."""

import json
import pkgutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import thresher
from thresher.core import card as cards
from thresher.core import index as indices
from thresher.core.card import Card, Catalogued, catalogue, entries, entry_of, find
from thresher.core.discovery import import_modules
from thresher.core.errors import OptionError

ROOT = Path(thresher.__file__).parent


def test_the_index_agrees_with_the_classes():
    for room in pkgutil.iter_modules([str(ROOT)]):
        if room.ispkg and room.name != "evidence":
            import_modules(f"thresher.{room.name}")
    registered = {
        name: method
        for name, method in cards._METHODS.items()
        if method.__module__.startswith("thresher.")
    }
    indexed = entries()
    assert registered.keys() == indexed.keys()
    for name, method in registered.items():
        entry, own = indexed[name], entry_of(method)
        assert entry.load() is method
        assert (entry.card, entry.area) == (own.card, own.area)
        assert ("Recipe" in entry.bases) == ("Recipe" in own.bases)
    assert list(catalogue()) == sorted(registered)


def test_a_written_index_is_what_is_read(tmp_path, monkeypatch):
    """As a build writes it: with no package but the standard library's."""
    out = tmp_path / indices.FILE
    command = [sys.executable, "-I", "-S", ROOT / "core" / "index.py", out]
    subprocess.run(command, check=True)
    assert json.loads(out.read_text()) == json.loads(json.dumps(indices.scan(ROOT)))
    monkeypatch.setattr(indices, "_ROOT", tmp_path)
    assert indices.index.__wrapped__()["methods"]["wanda"]["class"] == "Wanda"


NEW = '''
from dataclasses import dataclass
from ..core.card import Card, Catalogued
from .wanda import Wanda


@dataclass(frozen=True)
class Newer(Wanda, Catalogued):
    """New."""

    card = Card(
        name="newer",
        title="A title "
        "in two lines",
        authors="Me",
        year=2026,
        summary="New.",
    )
'''


def test_a_file_that_was_just_added_counts_at_once(tmp_path):
    (tmp_path / "prune").mkdir()
    for name in ("wanda.py", "recipe.py"):
        text = (ROOT / "prune" / name).read_text(encoding="utf-8")
        (tmp_path / "prune" / name).write_text(text, encoding="utf-8")
    (tmp_path / "prune" / "newer.py").write_text(NEW, encoding="utf-8")
    found = indices.scan(tmp_path)["methods"]
    assert list(found) == ["newer", "wanda"]
    assert found["newer"]["card"]["title"] == "A title in two lines"
    assert found["newer"]["module"] == "thresher.prune.newer"
    assert "Recipe" in found["newer"]["bases"]


def test_names_in_other_letters_and_unknown_names():
    assert find("Essential_Sparsity").card.name == "essential-sparsity"
    with pytest.raises(OptionError, match="there is no method 'wandaa'; did you mean 'wanda'"):
        find("wandaa")


@pytest.mark.parametrize("imported", [True, False])
def test_a_name_that_is_taken_is_named(monkeypatch, imported):
    fields = asdict(find("wanda").card)
    if not imported:
        monkeypatch.delitem(cards._METHODS, "wanda")
    with pytest.raises(OptionError, match=r"two methods are named 'wanda': thresher\.prune\.wanda"):
        type("Mine", (Catalogued,), {"card": Card(**fields)})


def test_finding_a_method_imports_one_module_and_listing_none():
    code = """
import sys
from thresher.core.card import entries, find
assert entries()["magnitude"].area == "prune"
assert not {"torch", "numpy", "sklearn"} & set(sys.modules)
find("magnitude")
assert "thresher.prune.sparsegpt" not in sys.modules and "thresher.linear" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
