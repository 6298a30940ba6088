"""Read damaged sparse folders, and count what came of it.

    python -m benchmarks.fuzz [--inputs 100000] [--seed 0] [--first 0]

Every input is a small folder that is damaged in one to three ways: bytes, headers, shapes,
settings, names, index, configuration. Both readers must refuse it with a clean error or read
exactly what docs/format.md says, by a second reader that was written from that text. Anything else
is printed, and the command then fails. An input is named by seed and number: `--first N --inputs 1`
repeats one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from ..machine import description
from .runs import MEMORY, SECONDS, run

RESULTS = Path(__file__).parents[1] / "results" / "fuzz.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = run(options.inputs, options.seed, options.first)
    found["limits"] = {"seconds": SECONDS, "bytes": MEMORY}
    found["date"] = datetime.now(UTC).date().isoformat()
    found["commit"] = _commit()
    found["machine"] = description("thresher", "torch", "safetensors", "numpy", "transformers")
    print(json.dumps(found, indent=2))
    if options.first == 0:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(1 if found["anything_else"] else 0)


def _commit() -> str | None:
    """Return the commit of the tree, with a plus sign where it was changed."""
    described = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    ran = subprocess.run(described, capture_output=True, text=True, cwd=Path(__file__).parent)
    return ran.stdout.strip() or None


if __name__ == "__main__":
    main()
