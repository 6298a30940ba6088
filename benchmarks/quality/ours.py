"""Measure Thresher on the cases of the reference, and set both side by side.

    python -m benchmarks.quality.ours                                # every case
    python -m benchmarks.quality.ours --case sparsegpt-50 --timing  # one, on a quiet machine

Results are merged, case by case, into ``benchmarks/results/quality-thresher.json``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import geometric_mean

import numpy as np

from thresher.assets import smollm2

from .reference import RESULTS as REFERENCE
from .tokens import tokens
from .windows import ALL, case_of, label, window_slice

RESULTS = REFERENCE.with_name("quality-thresher.json")
CASES = {
    "sparsegpt-50": ("sparsegpt", {"density": 0.5}),
    "sparsegpt-2:4": ("sparsegpt", {"pattern": "2:4"}),
    "sparsegpt-70": ("sparsegpt", {"density": 0.3}),
    "wanda-50": ("wanda", {"density": 0.5}),
    "wanda-2:4": ("wanda", {"pattern": "2:4"}),
    "wanda-70": ("wanda", {"density": 0.3}),
    "magnitude-50": ("magnitude", {"density": 0.5}),
    "dsnot-70": ("dsnot", {"density": 0.3}),
}


def measure(case: str, chosen: slice, out: Path, float32: bool) -> dict[str, object]:
    """Prune and evaluate one case in this process."""
    import torch
    from transformers import AutoModelForCausalLM

    import thresher  # noqa: F401 - teaches transformers the sparse format
    from thresher.prune.disk import DiskOptions, prune_folder
    from thresher.prune.memory import as_recipe

    from .perplexity import perplexity

    method, options = CASES[case]
    windows = torch.from_numpy(np.load(tokens() / "calibration.npy")[chosen])
    recipe = as_recipe(method).with_options(**options)
    # The peer's forward passes are in float32; ours are in what the machine multiplies best.
    passes = DiskOptions(precision=torch.float32 if float32 else None)
    record = prune_folder(smollm2(), out, recipe, windows, passes)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    return {
        "perplexity": perplexity(model, np.load(tokens() / "evaluation.npy")),
        "density": record.density,
        "prune_seconds": record.timings["total"],
        "timings": {phase: round(seconds, 2) for phase, seconds in record.timings.items()},
        "peak_rss_gib": round(record.peak_bytes / 2**30, 3),
        "threads": torch.get_num_threads(),
        "versions": record.versions,
    }


def run(
    case: str, windows: str, quiet: bool, keep: Path | None = None, float32: bool = False
) -> dict[str, object]:
    """Measure one case in a process of its own, so that its peak memory is its own.

    The pruned model is left in the folder `keep`, if one is given; `float32` runs the forward
    passes in float32 where they would be in bfloat16.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.quality.ours", "--case", case]
        command += ["--windows", windows, "--keep", str(keep or Path(folder) / "pruned")]
        command += ["--float32"] if float32 else []
        subprocess.run([*command, "--worker", str(file)], check=True)
        result: dict[str, object] = json.loads(file.read_text())
    date = datetime.now(UTC).date().isoformat()
    return result | {"quiet_machine": quiet, "load_before": round(load, 2), "date": date}


def side_by_side() -> None:
    """Print both sides' figures, their ratios, and the mean ratio of a case's window sets."""
    ours = json.loads(RESULTS.read_text())["cases"]
    theirs = json.loads(REFERENCE.read_text())["cases"]
    print(
        f"{'case':28}{'ours':>9}{'peer':>9}{'ratio':>8}{'s':>8}{'s peer':>8}{'GiB':>7}{'peer':>7}"
    )
    sets = defaultdict(list)
    for name, a in ours.items():
        b = theirs.get(name)
        if b is None:
            print(f"{name:28}{a['perplexity']:9.2f}")
            continue
        ratio = a["perplexity"] / b["perplexity"]
        print(
            f"{name:28}{a['perplexity']:9.2f}{b['perplexity']:9.2f}{ratio:8.3f}"
            f"{a['prune_seconds']:8.1f}{b['prune_seconds']:8.1f}"
            f"{a['peak_rss_gib']:7.2f}{b['peak_rss_gib']:7.2f}"
        )
        sets[case_of(name)].append(ratio)
    for case, ratios in sets.items():
        if len(ratios) > 1:
            mean = f"geometric mean of {len(ratios)} sets"
            print(f"{case}: {mean} {geometric_mean(ratios):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, help="one case; all of them without it")
    parser.add_argument(
        "--windows", default=ALL, help="calibrate on the windows A:B only; on all without it"
    )
    parser.add_argument("--timing", action="store_true", help="the machine is otherwise idle")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--float32", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        chosen = window_slice(options.windows)
        result = measure(options.case, chosen, options.keep, options.float32)
        options.worker.write_text(json.dumps(result))
        return
    for case in [options.case] if options.case else CASES:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}}
        name = label(case, options.windows)
        known["cases"][name] = run(case, options.windows, options.timing)
        RESULTS.write_text(json.dumps(known, indent=2) + "\n")
        print(name, known["cases"][name]["perplexity"], flush=True)
    side_by_side()


if __name__ == "__main__":
    main()
