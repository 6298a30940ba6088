"""The code of guides in docs/, to be run."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def snippets(page: str) -> list[str]:
    """Return the blocks of Python of a guide, in order."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def snippet(page: str, words: str) -> str:
    """Return the only block of a guide with these words in it."""
    (found,) = [block for block in snippets(page) if words in block]
    return found
