"""Time every layout beside its rivals: ``python -m benchmarks.kernels``."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from thresher.core.files import write_text

from .. import machine
from . import convolutions, environment, measure, plot
from .cases import BATCHES, CASES, SHAPES

RESULTS = Path(__file__).parents[1] / "results"
QUIET_NOISE = 0.1
PARTS = ("products", "training", "convolutions")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.kernels", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument(
        "--anyway", action="store_true", help="measure on a loaded machine too, and say so"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="only these; default all")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    busy = machine.busy_percent()
    if busy > machine.QUIET_PERCENT and not options.anyway:
        print(f"{busy:.0f} % of the processor is in use by others; no figures on a loaded machine")
        return 1
    total = len(SHAPES) * len(BATCHES) * len(CASES)
    parts = {
        "products": (measure.products, total),
        "training": (measure.training, 3),
        "convolutions": (convolutions.rows, convolutions.COUNT),
    }
    rows = []
    for part in options.parts or parts:
        measured, count = parts[part]
        rows += track(measured(options.repeats), part, count)
    noise = statistics.median(row["noise"] for row in rows)
    quiet = busy <= machine.QUIET_PERCENT and noise <= QUIET_NOISE
    if not quiet and not options.anyway:
        print(f"the same product took times {noise:.0%} apart; no figures on a loaded machine")
        return 1
    report = {
        "machine": environment.description(),
        "quiet": quiet,
        "busy_percent": busy,
        "median_noise": noise,
        "repeats": options.repeats,
        "seeds": {"weights": 0, "supports": 1},
        "method": "least of interleaved repeats, caches flushed before each",
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    name = "-".join(["kernels", *(options.parts or ())])
    write_text(options.out / f"{name}.json", json.dumps(report, indent=1) + "\n")
    if not options.parts:
        for batch, figure in plot.ratios(rows).items():
            write_text(options.out / f"kernels-{batch}.figure.json", figure.to_json() + "\n")
    Console(width=150).print(table(rows, quiet))
    return 0


def table(rows: list[dict[str, Any]], quiet: bool) -> Table:
    found = Table(title="time of the rival / time of the layout")
    for heading in ("case", "shape", "batch", "ms", "bytes", "ratios", "to reach", "short by"):
        found.add_column(heading, justify="left" if heading == "case" else "right")
    for row in rows:
        found.add_row(
            row["case"],
            "x".join(map(str, row["shape"])),
            str(row["batch"]),
            f"{row['seconds'] * 1e3:.3f}",
            f"{row['bytes_of_dense_bf16']:.3f}" if "bytes" in row else "",
            ", ".join(f"{rival} {ratio:.2f}" for rival, ratio in row["ratios"].items()),
            ", ".join(f"{rival} {ratio:g}" for rival, ratio in row["targets"].items()),
            ", ".join(f"{rival} {short:.2f}" for rival, short in row["missed_by"].items()),
        )
    if not quiet:
        found.caption = "Measured on a loaded machine: these figures are not reliable."
    return found


if __name__ == "__main__":
    sys.exit(main())
