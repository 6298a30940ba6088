"""Time the README's ``make demo`` in a fresh clone: from nothing, then a second time.

    python -m benchmarks.demo

The clone gets an environment of its own, so the first figure includes installation and
compilation; the model is fetched only where the asset cache lacks it. Wants a quiet machine.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from .machine import QUIET_PERCENT, busy_percent, description

REPOSITORY = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "demo.json"
#: In seconds, on two cores with BF16 and a quiet machine.
LIMITS = {"first": 300.0, "second": 180.0}


def main() -> None:
    busy = busy_percent()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "thresher"
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=clone, text=True)
        runs = {name: timed_demo(clone) for name in LIMITS}
    results = {
        "commit": commit.strip(),
        "quiet_machine": busy < QUIET_PERCENT,
        "limits_in_seconds": LIMITS,
        **runs,
        "machine": description("torch", "transformers"),
    }
    RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


def timed_demo(clone: Path) -> dict[str, object]:
    """Run the command and return its seconds and the table that it printed."""
    # Variables of an outer make or environment would not be there for a newcomer.
    hidden = ("MAKE", "MFLAGS", "VIRTUAL_ENV", "OMP_NUM_THREADS")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    start = time.perf_counter()
    output = subprocess.check_output(["make", "demo"], cwd=clone, text=True, env=environment)
    seconds = round(time.perf_counter() - start, 1)
    printed = output.replace(str(Path.home()), "~").splitlines()[-12:]
    return {"seconds": seconds, "printed": printed}


if __name__ == "__main__":
    main()
