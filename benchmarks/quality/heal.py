"""Measure what ``thresher heal`` gives back to ``--method best``, in and out of domain.

    python -m benchmarks.quality.heal                  # 30 minutes each at 50 % and at 2:4
    python -m benchmarks.quality.heal --pattern 2:4 --minutes 10
    python -m benchmarks.quality.heal --control        # the dense model, trained on that text

SmolLM2, pruned on the first 16 calibration windows of :mod:`.best`, healed on all the addresses of
1950 to 1990, and evaluated on later ones and on *Emma*. Healing stops by the clock, so that a busy
machine gives less: its load is recorded beside. The control is the dense model, trained on the same
windows to predict their next tokens, in as many steps as healing took: what the text itself
teaches. (Healed, it would stay as it is: its distance from itself is zero.) Results are merged into
``benchmarks/results/quality-heal.json``.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

import thresher as th
from thresher.assets import smollm2, state_of_the_union
from thresher.core.files import write_text
from thresher.parts.calibration import token_windows
from thresher.prune.best import Best
from thresher.prune.disk import prune_folder
from thresher.run.evaluate import compare

from ..machine import provenance
from .best import PATTERNS
from .best import RESULTS as BEST
from .tokens import emma, tokens
from .windows import window_slice

RESULTS = BEST.with_name("quality-heal.json")
WINDOWS = "0:16"
#: Of healing.
LENGTH = 512
BATCH = 4
#: Of the control: fine-tuning's usual one, and the least that healing tries.
RATES = (1e-5, 1e-4)


def control(steps: int, rate: float) -> dict[str, object]:
    """Train the dense model on the text of healing for so many steps, and evaluate it."""
    from transformers import AutoModelForCausalLM

    dense, model = (
        AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.float32).eval()
        for _ in range(2)
    )
    windows = _healing_windows()
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for step in range(steps):
        chosen = windows[order[torch.arange(step * BATCH, (step + 1) * BATCH) % len(order)]]
        model(chosen, labels=chosen).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return distances(dense, model, _texts()) | {"steps": steps, "rate": rate}


def measure(pattern: str, minutes: float, folder: Path) -> dict[str, object]:
    """Prune, heal and evaluate."""
    from transformers import AutoModelForCausalLM

    calibration = torch.from_numpy(np.load(tokens() / "calibration.npy")[window_slice(WINDOWS)])
    recipe = Best().with_options(**PATTERNS[pattern])
    prune_folder(smollm2(), folder / "pruned", recipe, calibration)
    dense, model = (
        AutoModelForCausalLM.from_pretrained(each, dtype=torch.float32).eval()
        for each in (smollm2(), folder / "pruned")
    )
    found: dict[str, object] = {"pruned": distances(dense, model, _texts())}
    windows = _healing_windows()
    record = th.heal(model, dense, windows, minutes=minutes)
    found["healed"] = distances(dense, model, _texts())
    found["healing"] = {
        "minutes": minutes,
        "windows": len(windows),
        "length": LENGTH,
        "steps": record.steps,
        "loss_before": record.loss_before,
        "loss_after": record.loss_after,
    }
    return found


def _healing_windows() -> torch.Tensor:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    text = state_of_the_union(1950, 1990)
    return token_windows(tokenizer, text, length=LENGTH, count=10_000)


def _texts() -> dict[str, torch.Tensor]:
    return {
        "perplexity": torch.from_numpy(np.load(tokens() / "evaluation.npy")),
        "emma": torch.from_numpy(emma()),
    }


def distances(dense: object, model: object, texts: dict[str, torch.Tensor]) -> dict[str, object]:
    """Return a model's perplexity and divergence on every text, beside the dense model's."""
    found: dict[str, object] = {}
    for name, windows in texts.items():
        each = compare(dense, model, windows)
        found[name] = each.pruned_perplexity
        found[f"{name}_dense"] = each.dense_perplexity
        found[f"{name}_kl"] = each.kl
    return found


def table(known: dict[str, dict[str, object]]) -> None:
    """Print perplexities, and their ratios to plain SparseGPT's on the same windows."""
    rivals = json.loads(BEST.read_text())
    titles = ("of SparseGPT", "of dense")
    print(f"{'case':24}{'in':>8}{'Emma':>8}", *(f"{x:>15}" for x in titles), "     KL  KL Emma")
    for name, case in known.items():
        if "pruned" not in case:
            ratios = " / ".join(
                f"{case[k] / case[f'{k}_dense']:.3f}" for k in ("perplexity", "emma")
            )
            print(f"{name}: {case['perplexity']:.2f}, Emma {case['emma']:.2f}, {ratios} of dense")
            continue
        pattern = name.rpartition(" ")[0].rpartition(" ")[0]
        rival = rivals[f"{pattern} sparsegpt {WINDOWS}"]
        for what in ("pruned", "healed"):
            held = case[what]
            keys = ("perplexity", "emma")
            ratios = " / ".join(f"{held[key] / rival[key]:.3f}" for key in keys)
            dense = " / ".join(f"{held[key] / held[f'{key}_dense']:.3f}" for key in keys)
            values = "".join(f"{held[key]:8.2f}" for key in keys)
            print(
                f"{name + ' ' + what:24}{values}{ratios:>16}{dense:>16}"
                f"{held['perplexity_kl']:8.3f}{held['emma_kl']:9.3f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pattern", choices=PATTERNS, action="append")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--control", action="store_true", help="the dense model alone")
    options = parser.parse_args()
    if options.control:
        known = json.loads(RESULTS.read_text())
        steps = max(case["healing"]["steps"] for case in known.values() if "healing" in case)
        for rate in RATES:
            found = control(steps, rate) | provenance()
            known |= {f"control, dense at {rate:g}": found}
            write_text(RESULTS, json.dumps(known, indent=2) + "\n")
        table(known)
        return
    for pattern in options.pattern or ("50 %", "2:4"):
        before = os.times()
        with tempfile.TemporaryDirectory() as folder:
            found = measure(pattern, options.minutes, Path(folder))
        after = os.times()
        # Of as many seconds as threads were to be had: what others left of the machine.
        share = (after.user + after.system - before.user - before.system) / (
            (after.elapsed - before.elapsed) * torch.get_num_threads()
        )
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        name = f"{pattern} {options.minutes:g} minutes"
        found |= {"threads": torch.get_num_threads(), "busy_share": round(share, 2)}
        write_text(RESULTS, json.dumps(known | {name: found | provenance()}, indent=2) + "\n")
    table(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
