"""Run every problem with every library: ``python -m benchmarks.linear``.

Creates an environment for the peers in the cache the first time. Each library is given the
loosest of a ladder of tolerances at which it reaches the target error; the time reported is
the fastest of the warm repeats, beside the first call.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from thresher.assets.fetch import cached

from .plots import save_plots
from .problems import Problem, problems

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
LADDER = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)


def peers() -> str:
    """Return the interpreter of the environment that holds the peers."""
    requirements = HERE / "requirements.txt"

    def build(folder: Path) -> None:
        venv.create(folder / "venv", with_pip=True)
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)

    return str(cached(f"linear-peers-{python_tag()}", build) / "venv/bin/python")


def python_tag() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def measure(problem: Problem, library: str, file: str, python: str, repeats: int) -> dict:
    """Return time and error at every tolerance, and which is the loosest that suffices."""
    result = f"{file}.{library}"
    exact = not np.isfinite(problem.target)
    ladder = ",".join(str(tolerance) for tolerance in (LADDER[-1:] if exact else LADDER))
    command = [python, str(HERE / "worker.py"), file, result, library, ladder, str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True)
    row = {"problem": problem.name, "library": library, "measure": problem.measure}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return row | {"failed": lines[-1] if lines else f"exit status {done.returncode}"}
    row |= json.loads(Path(result + ".json").read_text())
    coefs = np.load(result + ".npz")
    for k, run in enumerate(row["runs"]):
        coef = coefs[f"arr_{k}"]
        run["error"] = float(problem.error(coef))
        run["nonzero"] = int(np.count_nonzero(coef))
    reached = [k for k, run in enumerate(row["runs"]) if run["error"] <= problem.target]
    row["reached"] = bool(reached)
    row["chosen"] = reached[0] if reached else len(row["runs"]) - 1
    return row


def table(rows: list[dict]) -> Table:
    """Return the table that is printed: one row per problem and library."""
    shown = Table(title="Sparse linear models beside peers")
    for column in ("problem", "library", "first s", "warm s", "error", "non-zeros"):
        shown.add_column(column)
    for row in rows:
        if "failed" in row:
            shown.add_row(row["problem"], row["library"], "failed", row["failed"][:40], "", "")
            continue
        run = row["runs"][row["chosen"]]
        error = f"{run['error']:.1e}" + ("" if row["reached"] else " (above target)")
        times = (f"{row['first']:.3f}", f"{run['warm']:.3f}")
        shown.add_row(row["problem"], row["library"], *times, error, str(run["nonzero"]))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.linear", description=__doc__)
    parser.add_argument("--only", default="", help="run the problems whose name holds this text")
    parser.add_argument("--repeats", type=int, default=2, help="warm repeats")
    parser.add_argument("--small", action="store_true", help="a quick trial; not written down")
    options = parser.parse_args()
    console = Console()
    python = peers()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for problem in problems(python, options.small):
            if options.only.lower() not in problem.name.lower():
                continue
            file = str(Path(folder) / "problem.npz")
            np.savez(file, X=problem.X, y=problem.y, alpha=problem.alpha, kind=problem.kind)
            for library in problem.libraries:
                interpreter = sys.executable if library == "thresher" else python
                rows.append(measure(problem, library, file, interpreter, options.repeats))
                console.print(table(rows[-1:]))
    console.print(table(rows))
    if options.small or options.only:
        return
    record = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "results": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / "linear.json"
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(target)
    save_plots(record["results"], RESULTS)
    console.print(f"written: {target}")


if __name__ == "__main__":
    main()
