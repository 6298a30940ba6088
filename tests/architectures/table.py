"""The table of the documentation: what works with which architecture.

``python -m tests.architectures.table`` writes ``docs/architectures.md`` anew; the tests then
hold every row to it.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch

from .architecture import Architecture
from .models import ARCHITECTURES
from .trial import CHECKS, Trial

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
_INTRODUCTION = """# Architectures

Every row is a model class of transformers, built small with random weights and tried whole:

- **memory**: the masks that `th.prune(model, "wanda", ...)` chooses are those of Wanda's
  definition, recomputed with plain forward passes and nothing of Thresher's, with the model's
  key-value cache and without.
- **accounted**: every weight that is used as a matrix is pruned, or the record counts it among
  what was kept on purpose or not understood.
- **no cache**: the masks are the same when the model's configuration forbids a cache.
- **disk**: `thresher prune FOLDER`, block by block, chooses the same masks (a dash where a
  model needs more than token ids).
- **reload**: what `th.save` wrote gives the same logits after `from_pretrained`.
- **packed**: so does what `th.pack` made and `save_pretrained` wrote.

"Refused" means an error that says why. The tests run all of it
(`tests/architectures`) and fail where a row is no longer true.

"""


def row(name: str, model: str, cells: Iterable[str]) -> str:
    """Return one line of the table."""
    return "| " + " | ".join([name, f"`{model}`", *cells]) + " |"


def header() -> str:
    """Return the first two lines of the table."""
    titles = ["architecture", "class", *CHECKS]
    return "| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|"


def documented() -> dict[str, dict[str, str]]:
    """Return what the page says: cells by architecture and check."""
    rows = re.findall(r"^\| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    cells = [line.split(" | ") for line in rows]
    return {c[0]: dict(zip(CHECKS, c[2:], strict=True)) for c in cells[1:]}


def try_all(architecture: Architecture) -> str:
    """Return the row of an architecture, naming on the terminal what failed."""
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(architecture, Path(folder))
        for check in CHECKS:
            try:
                cells.append(trial.outcome(check))
            except Exception as error:  # whatever goes wrong is what the table must say
                cells.append("no")
                text = " ".join(str(error).split())
                print(f"{architecture}, {check}: {type(error).__name__}: {text[:300]}")
    return row(architecture.name, architecture.model, cells)


def main() -> None:
    """Write the page."""
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    known = [a for a in ARCHITECTURES if not a.missing and (not wanted or a.name in wanted)]
    rows = [try_all(architecture) for architecture in known]
    if wanted:
        print("\n".join(rows))
    else:
        PAGE.write_text(_INTRODUCTION + "\n".join([header(), *rows]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
