"""The index of methods and parts: read off the sources, so that listing them imports nothing.

A wheel carries the index as a file, written when it is built by ``python index.py OUT``. In a
source tree there is no such file: the sources are read each time, and a new one counts at once.
This file stands alone, as a build has none of the packages that Thresher needs.
"""

from __future__ import annotations

__all__ = ["FILE", "index", "scan"]

import ast
import functools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = "_catalogue.json"
_ROOT = Path(__file__).parents[1]
_ATTRIBUTES = ("card", "kind", "name", "spellings")
#: Files without such a line define no class that the index tells of.
_MARK = re.compile(rf"^    ({'|'.join(_ATTRIBUTES)})(:.*)? = ", re.MULTILINE)


@functools.cache
def index() -> dict[str, Any]:
    """Return the index of this package, see :func:`scan`."""
    file = _ROOT / FILE
    found: dict[str, Any] = (
        json.loads(file.read_text(encoding="utf-8")) if file.is_file() else scan(_ROOT)
    )
    return found


def scan(root: Path) -> dict[str, Any]:
    """Read the index off the sources.

    Parameters
    ----------
    root : Path
        Folder of the package ``thresher``.

    Returns
    -------
    dict
        ``methods``: by name of the card, its fields as ``card``, ``module``, ``class``, and
        ``bases``, the names of the classes that the method derives from. ``parts``: by kind
        and name, the texts that users may type. Sorted by name.
    """
    found = [each for file in _sources(root) for each in _classes(file, root)]
    classes = {each["class"]: each for each in found}
    methods: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for each in found:
        bases = list(_ancestors(each, classes))
        if card := each.get("card"):
            methods[card["name"]] = {
                "card": card,
                "module": each["module"],
                "class": each["class"],
                "bases": bases,
            }
        kinds = (classes[base].get("kind") for base in bases if base in classes)
        kind = next((k for k in kinds if isinstance(k, str)), None)
        if kind and "name" in each:
            parts.setdefault(kind, {})[each["name"]] = each.get("spellings") or [each["name"]]
    return {
        "methods": dict(sorted(methods.items())),
        "parts": {kind: dict(sorted(parts[kind].items())) for kind in sorted(parts)},
    }


def _sources(root: Path) -> Iterator[Path]:
    """Yield the package's public modules."""
    for file in sorted(root.rglob("*.py")):
        inside = file.relative_to(root).parts
        if inside[0] != "evidence" and not any(part.startswith("_") for part in inside):
            yield file


def _classes(file: Path, root: Path) -> Iterator[dict[str, Any]]:
    """Yield what the classes of a file say of themselves."""
    text = file.read_text(encoding="utf-8")
    if not _MARK.search(text):
        return
    module = ".".join(("thresher", *file.relative_to(root).with_suffix("").parts))
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(b).partition("[")[0].rpartition(".")[2] for b in node.bases]
            said = {key: value for line in node.body for key, value in _said(line)}
            yield {"module": module, "class": node.name, "parents": bases, **said}


def _said(line: ast.stmt) -> Iterator[tuple[str, Any]]:
    """Yield an attribute of a class that the index tells of, if the line sets one."""
    targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
    value = getattr(line, "value", None)
    for target in targets:
        if not isinstance(target, ast.Name) or target.id not in _ATTRIBUTES:
            continue
        if target.id == "card" and isinstance(value, ast.Call):
            yield "card", {str(k.arg): ast.literal_eval(k.value) for k in value.keywords}
        elif isinstance(value, ast.Constant | ast.Tuple):
            yield target.id, ast.literal_eval(value)


def _ancestors(each: dict[str, Any], classes: dict[str, Any]) -> Iterator[str]:
    for parent in each["parents"]:
        yield parent
        if parent in classes and parent != each["class"]:
            yield from _ancestors(classes[parent], classes)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(scan(_ROOT), indent=1) + "\n", encoding="utf-8")
