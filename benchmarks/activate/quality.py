"""SmolLM2's perplexity by the share of weights that a token does not read."""

from __future__ import annotations

from typing import Any

import torch

import thresher as th
from thresher.assets import smollm2, state_of_the_union
from thresher.parts.calibration import token_windows
from thresher.run.evaluate import perplexity

SHARES = (0.25, 0.4, 0.5, 0.65)
#: Methods and how their levels are set, in the order of the table.
KINDS = (("teal", "uniform"), ("teal", "greedy"), ("wina", "uniform"))
LENGTH, CALIBRATION, HELD_OUT = 256, 8, 8
YEARS = ((1990, 2013), (2014, 2024))


def windows() -> list[torch.Tensor]:
    """Return the windows to calibrate on, and those to be measured on."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    counts = (CALIBRATION, HELD_OUT)
    found = []
    for years, count in zip(YEARS, counts, strict=True):
        cut = token_windows(tokenizer, state_of_the_union(*years), length=LENGTH)
        found.append(cut[:: len(cut) // count][:count])  # of all years
    return found


def quality(repeats: int) -> list[dict[str, Any]]:
    """Calibrate anew for every share, and measure in torch; nothing is timed."""
    from transformers import AutoModelForCausalLM

    first, last = windows()
    model = AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.float32).eval()
    dense = perplexity(model, last)
    rows = [{"method": "dense", "perplexity": dense}]
    for share in SHARES:
        for method, levels in KINDS:
            th.activate(model, method, first, sparsity=share, levels=levels, progress=False)
            found = perplexity(model, last)
            record = th.activation_record(model)
            rows.append(
                {
                    "method": method,
                    "levels": levels,
                    "not_read": share,
                    "not_read_in_calibration": round(record.sparsity, 4),
                    "perplexity": round(found, 3),
                    "times_dense": round(found / dense, 4),
                    "seconds": round(record.timings["total"], 1),
                }
            )
            print(rows[-1], flush=True)
    return rows
