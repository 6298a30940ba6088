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
import sys
from pathlib import Path

from ..machine import provenance
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
    found |= provenance("thresher", "torch", "safetensors", "numpy", "transformers")
    print(json.dumps(found, indent=2))
    if options.first == 0:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(1 if found["anything_else"] else 0)


if __name__ == "__main__":
    main()
