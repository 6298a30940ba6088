"""Measure ``--method best`` and what each of its parts brings, beside plain SparseGPT.

    python -m benchmarks.quality.best                           # all that is not measured yet
    python -m benchmarks.quality.best --pattern 2:4 --windows 0:16 --timing    # one, timed

Seconds are recorded with ``--timing``, for a quiet machine; perplexities do not need one, so that
several of these commands may run at a time.

SmolLM2, calibrated on windows of the State of the Union addresses 1950-1990, evaluated on later
addresses and on *Emma*, another genre. At a hard cut perplexity moves by several percent with
the calibration windows alone, so that what counts is the geometric mean over sets of them.
Results are merged into ``benchmarks/results/quality-best.json``.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import geometric_mean

import numpy as np

from thresher.assets import smollm2
from thresher.core.files import write_text

from ..machine import provenance
from .perplexity import perplexity
from .reference import RESULTS as REFERENCE
from .tokens import emma, own, tokens
from .windows import window_slice

RESULTS = REFERENCE.with_name("quality-best.json")
#: Disjoint sets of calibration windows, then all of them.
SETS = ("0:16", "16:32", "32:48", "48:64", ":")
#: Windows that the dense model wrote, as many as in a set.
OWN = "own"
PATTERNS = {"50 %": {"density": 0.5}, "2:4": {"pattern": "2:4"}, "70 %": {"density": 0.3}}


def recipes():
    """Return SparseGPT, best, best without each of its parts, and with what it does without."""
    from thresher.parts import budgets, tokens, updates
    from thresher.parts.progression import ArithmeticProgression
    from thresher.prune.best import Best
    from thresher.prune.sparsegpt import SparseGPT

    best = Best()
    without = {
        "dense target": {"update": best.update.update},
        "whole-layer support": {"update": updates.DenseTarget(updates.OBS())},
        "token weights": {"tokens": tokens.EqualTokens()},
        "stages": {"stages": False},
    }
    strengths = {
        f"strength {x}": {"update": dataclasses.replace(best.update, strength=x)}
        for x in (0.25, 0.5, 0.75, 1.0)
    }
    changed = {f"best without {part}": change for part, change in without.items()}
    changed |= {f"best with {part}": change for part, change in strengths.items()}
    others = {
        "OWL": budgets.OWL(),
        "LAMP": budgets.LAMP(),
        "an arithmetic progression": ArithmeticProgression(),
    }
    changed |= {f"best with {name}": {"budget": budget} for name, budget in others.items()}
    plain = SparseGPT()
    return {
        "sparsegpt": plain,
        **{f"sparsegpt with {n}": dataclasses.replace(plain, budget=b) for n, b in others.items()},
        "best": best,
        **{name: dataclasses.replace(best, **change) for name, change in changed.items()},
    }


def measure(method: str, pattern: str, windows: str, out: Path) -> dict[str, object]:
    """Prune and evaluate one case in this process."""
    import torch
    from transformers import AutoModelForCausalLM

    import thresher  # noqa: F401 - teaches transformers the sparse format
    from thresher.core.machine import return_freed_memory
    from thresher.prune.disk import prune_folder

    return_freed_memory()  # as the command does
    recipe = recipes()[method].with_options(**PATTERNS[pattern])
    given = np.load(tokens() / "calibration.npy")
    calibration = torch.from_numpy(own() if windows == OWN else given[window_slice(windows)])
    record = prune_folder(smollm2(), out, recipe, calibration)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    return {
        "perplexity": perplexity(model, np.load(tokens() / "evaluation.npy")),
        "emma": perplexity(model, emma()),
        "density": record.density,
        "seconds": round(record.timings["total"], 1),
        "peak_gib": round(record.peak_bytes / 2**30, 3),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": record.versions,
    }


def run(method: str, pattern: str, windows: str) -> dict[str, object]:
    """Measure one case in a process of its own, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.quality.best", "--worker", str(file)]
        case = ["--method", method, "--pattern", pattern, "--windows", windows]
        subprocess.run([*command, *case], check=True)
        return json.loads(file.read_text()) | provenance()


def results() -> dict[str, dict[str, object]]:
    """Return what is measured, by pattern, recipe and windows."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def table(known: dict[str, dict[str, object]]) -> None:
    """Print every recipe's mean ratios to SparseGPT on the same windows.

    Times are compared where both were timed, on as many threads.
    """
    print(f"{'pattern':8}{'recipe':34}{'sets':>5}{'in':>8}{'Emma':>8}{'time':>8}{'memory':>8}")
    for pattern in PATTERNS:
        for method in recipes():
            pairs = [
                (mine, base)
                for windows in SETS[:-1]
                if (mine := known.get(f"{pattern} {method} {windows}"))
                and (base := known.get(f"{pattern} sparsegpt {windows}"))
            ]
            if pairs:
                timed = [
                    (a, b)
                    for a, b in pairs
                    if "seconds" in a and "seconds" in b and a["threads"] == b["threads"]
                ]
                numbers = "".join(
                    f"{_mean_ratio(some, key):>8}"
                    for some, key in (
                        (pairs, "perplexity"),
                        (pairs, "emma"),
                        (timed, "seconds"),
                        (pairs, "peak_gib"),
                    )
                )
                print(f"{pattern:8}{method:34}{len(pairs):5}{numbers}")


def _mean_ratio(pairs: list[tuple[dict[str, object], dict[str, object]]], key: str) -> str:
    known = [(a[key], b[key]) for a, b in pairs if key in a and key in b]
    return f"{geometric_mean(a / b for a, b in known):.3f}" if known else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", action="append", help="Repeatable; all without it.")
    parser.add_argument("--pattern", choices=PATTERNS, action="append")
    parser.add_argument("--windows", choices=(*SETS, OWN), action="append")
    parser.add_argument("--timing", action="store_true", help="record seconds: a quiet machine")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = [options.method or list(recipes()), options.pattern or list(PATTERNS)]
    sets = options.windows or SETS[:-1]
    if options.worker:
        with tempfile.TemporaryDirectory() as folder:
            (method,), (pattern,) = chosen
            found = measure(method, pattern, sets[0], Path(folder) / "pruned")
        options.worker.write_text(json.dumps(found))
        return
    for windows in sets:
        for pattern in chosen[1]:
            for method in chosen[0]:
                name = f"{pattern} {method} {windows}"
                if name not in results():
                    found = run(method, pattern, windows)
                    if not options.timing:
                        del found["seconds"], found["load_before"]
                    # Read again: cases may be measured by several processes.
                    write_text(RESULTS, json.dumps(results() | {name: found}, indent=2) + "\n")
                found = results()[name]
                print(name, found["perplexity"], found["emma"], flush=True)
    table(results())


if __name__ == "__main__":
    main()
