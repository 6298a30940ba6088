"""The table of rooms says what the code imports, no more and no less."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "thresher"


def imports_of(room):
    """Return the rooms that the files of `room` import from."""
    found = set()
    for file in (PACKAGE / room).rglob("*.py"):
        inside = file.relative_to(PACKAGE).parts[:-1]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = inside[: len(inside) - node.level + 1]
            whole = (*base, *(node.module or "").split("."))
            for name in node.names:
                target = next(part for part in (*whole, name.name) if part)
                if (PACKAGE / target).is_dir():
                    found.add(target)
    return found - {room}


def documented():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", text, re.MULTILINE)
    return {room: set(re.findall(r"`(\w+)`", imports)) for room, imports in rows}


def test_every_room_is_documented_with_its_arrows():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert documented() == {room: imports_of(room) for room in rooms}
