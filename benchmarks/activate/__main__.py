"""What dropped inputs cost and save: single products, a billion weights, SmolLM2, and its quality.

    python -m benchmarks.activate kernel               # one thread, some minutes
    python -m benchmarks.activate billion --threads 2  # tokens per second, random weights
    python -m benchmarks.activate smollm2 --threads 2  # and perplexity in the engine, calibrated
    python -m benchmarks.activate quality              # perplexity in torch, a quarter of an hour
    python -m benchmarks.activate frames               # what changes of a video, in torch
    python -m benchmarks.activate kernel --repeats 3   # whether it runs

Speeds are held against the engine's own dense product of the very same four-bit numbers, groups of
32 inputs with a scale and a minimum, and frames against torch's convolution, in turn, several
rounds of it; medians of ratios count. Each part writes ``benchmarks/results/activate-PART.json``,
which says how busy the machine was before.
"""

import argparse
import json
from pathlib import Path

import torch

from thresher.core.files import write_text

from .. import machine
from .decoding import billion, smollm2
from .frames import frames
from .products import products
from .quality import quality

RESULTS = Path(__file__).parents[1] / "results"
PARTS = {
    "kernel": products,
    "billion": billion,
    "smollm2": smollm2,
    "quality": quality,
    "frames": frames,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.activate")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    busy = machine.busy_percent()
    found = {
        "rows": PARTS[given.part](given.repeats),
        "repeats": given.repeats,
        "threads": given.threads,
        "busy_percent_before": busy,
        **machine.provenance("thresher", "torch"),
    }
    write_text(RESULTS / f"activate-{given.part}.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
