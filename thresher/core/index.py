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
_HEADER = re.compile(r"^class (\w+)\(([^)]*)\):", re.MULTILINE)
#: Only files with such a line are parsed, since that takes thirty times as long as reading one.
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
    texts = {file: file.read_text(encoding="utf-8") for file in _sources(root)}
    parents = {name: _names(bases) for t in texts.values() for name, bases in _HEADER.findall(t)}
    classes = [c for file, text in texts.items() for c in _classes(text, _module(file, root))]
    kinds = {c["class"]: c["kind"] for c in classes if isinstance(c.get("kind"), str)}
    methods: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for each in classes:
        bases = _ancestors(each["class"], parents)
        if card := each.get("card"):
            methods[card["name"]] = {
                "card": card,
                "module": each["module"],
                "class": each["class"],
                "bases": bases,
            }
        kind = next((kinds[base] for base in bases if base in kinds), None)
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


def _module(file: Path, root: Path) -> str:
    return ".".join(("thresher", *file.relative_to(root).with_suffix("").parts))


def _names(bases: str) -> list[str]:
    """Return the bare names in the brackets of a class statement."""
    return [base.partition("[")[0].rpartition(".")[2].strip() for base in bases.split(",")]


def _classes(text: str, module: str) -> Iterator[dict[str, Any]]:
    """Yield what the classes of a file say of themselves."""
    for node in ast.parse(text).body if _MARK.search(text) else []:
        if isinstance(node, ast.ClassDef):
            said = {key: value for line in node.body for key, value in _said(line)}
            yield {"module": module, "class": node.name, **said}


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


def _ancestors(name: str, parents: dict[str, list[str]]) -> list[str]:
    """Return the names of a class's bases, of theirs, and so on, each once."""
    found, waiting = [], list(parents.get(name, []))
    while waiting:
        parent = waiting.pop(0)
        if parent not in found:
            found.append(parent)
            waiting += parents.get(parent, [])
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(scan(_ROOT), indent=1) + "\n", encoding="utf-8")
