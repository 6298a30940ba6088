"""What the benchmark of quality measured on a real model, by method and cut."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import geometric_mean
from typing import Any

_RESULTS = Path(__file__).parents[2] / "benchmarks/results"
#: What is removed, as the two files of results call it.
CUTS = {"50": "50 %", "70": "70 %", "2:4": "2:4"}


def measured_rows() -> dict[str, list[str]]:
    """Return perplexities of every measured method, or shares of SparseGPT's, cut by cut."""
    plain, best = _read("quality-thresher")["cases"], _read("quality-best")
    rows = {}
    for method in ("magnitude", "wanda", "sparsegpt"):
        found = [plain.get(f"{method}-{cut}") for cut in CUTS]
        rows[method] = [f"{f['perplexity']:.4g}" if f else "not measured" for f in found]
    ratios = []
    for cut in CUTS.values():
        pairs = [
            (value["perplexity"], best[key.replace(" best ", " sparsegpt ")]["perplexity"])
            for key, value in best.items()
            # Sets of windows, not those that the model wrote itself, nor another machine's.
            if re.fullmatch(rf"{cut} best \d+:\d+", key)
        ]
        ratios.append(f"{geometric_mean(a / b for a, b in pairs):.2f} of sparsegpt's")
    return rows | {"best": ratios}


def circumstances() -> str:
    """Return what the figures are of, in a sentence or two."""
    dense = _read("quality-reference")["cases"]["dense"]["perplexity"]
    return (
        "SmolLM2-135M, perplexity on State of the Union addresses that nothing was calibrated on "
        f"(dense {dense:.1f}). Magnitude, Wanda and SparseGPT are calibrated on 64 windows of 1024 "
        "tokens; ``best`` is beside SparseGPT on the same 16, the geometric mean over sets of them "
        "where there are several."
    )


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text("utf-8"))
    return found
