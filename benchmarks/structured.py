"""Smaller models: what removing a fifth of SmolLM2's block weights costs, and what it brings.

    python -m benchmarks.structured quality              # every method on both sets of windows
    python -m benchmarks.structured quality --method flap --windows 0:32
    python -m benchmarks.structured quality --method structured --minutes 30   # healed as well
    python -m benchmarks.structured speed                # on a quiet machine

Calibrated on windows of the State of the Union addresses 1950-1990, healed on all of these,
evaluated on later addresses and on *Emma*, another genre. Healing stops by the clock, so that a
busy machine gives less: its load is recorded beside. Results are merged into
``benchmarks/results/structured.json``.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np

from thresher.assets import smollm2, state_of_the_union
from thresher.core.files import write_text
from thresher.parts.calibration import token_windows

from .machine import QUIET_PERCENT, busy_percent, provenance
from .quality.perplexity import perplexity
from .quality.tokens import emma, tokens
from .quality.windows import window_slice

RESULTS = Path(__file__).parent / "results" / "structured.json"
METHODS = ("structured", "slimgpt", "flap", "slicegpt")
SETS = ("0:32", "32:64")
DENSITY = 0.8
#: Tokens of a window to heal on.
HEALING_LENGTH = 512
PACKAGES = ("torch", "transformers", "numpy")


def variants():
    """Return the methods, and structured with one part exchanged for another."""
    from thresher.parts import updates
    from thresher.parts.spreads import Incremental, WholeModel
    from thresher.prune.smaller import as_smaller_recipe

    known = {name: as_smaller_recipe(name) for name in METHODS}
    base = known["structured"]
    changes = {
        "no dense target": {"update": updates.LeastSquares()},
        "strength 1": {"update": updates.DenseTarget(updates.LeastSquares(), strength=1.0)},
        "no stages": {"stages": False},
        "no update": {"update": updates.Keep(), "stages": False},
        "one share everywhere": {"spread": Incremental(first=1.0), "stock": False},
        "over the whole model": {"spread": WholeModel("mean"), "stock": False},
    }
    return known | {
        f"structured, {name}": dataclasses.replace(base, **change)
        for name, change in changes.items()
    }


def quality(
    method: str, windows: str, length: int, evaluated: int, minutes: float
) -> dict[str, object]:
    """Make SmolLM2 smaller in this process, evaluate it, and do so again when it is healed."""
    import torch
    from transformers import AutoModelForCausalLM

    import thresher as th
    from thresher.core.remembered import remembered
    from thresher.prune.disk import peak_memory

    model = AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.float32).eval()
    found = {"evaluated": evaluated, "threads": torch.get_num_threads()}
    if method != "dense":
        chosen = np.load(tokens() / "calibration.npy")[window_slice(windows), :length]
        calibration = torch.from_numpy(chosen)
        found |= {"windows": windows, "length": length}
        started = time.perf_counter()
        recipe = variants()[method].with_density(DENSITY)
        model = th.prune(model, recipe, calibration, progress=False)
        found["seconds"] = round(time.perf_counter() - started, 1)
        found["peak_gib"] = round(peak_memory() / 2**30, 2)
        weights = remembered(model).structure["weights"]
        found["weights_left"] = round(weights["after"] / weights["before"], 4)
        found["shape"] = shape(model)
    found |= perplexities(model, evaluated)
    if minutes and method != "dense":
        found["healed"] = healed(model, minutes) | perplexities(model, evaluated)
    return found


def perplexities(model, evaluated: int) -> dict[str, float]:
    """Return what a model makes of later addresses and of *Emma*."""
    later = np.load(tokens() / "evaluation.npy")
    return {
        "perplexity": perplexity(model, later[:evaluated]),
        "emma": perplexity(model, emma()[:evaluated]),
    }


def healed(model, minutes: float) -> dict[str, object]:
    """Heal a smaller model, in place, and return how."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import thresher as th

    teacher = AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    text = state_of_the_union(1950, 1990)
    windows = token_windows(tokenizer, text, length=HEALING_LENGTH, count=10_000)
    record = th.heal(model, teacher, windows, minutes=minutes)
    losses = {"loss_before": record.loss_before, "loss_after": record.loss_after}
    return {"minutes": minutes, "steps": record.steps} | losses


def shape(model) -> dict[str, list[int]]:
    """Return widths and key-value heads of the blocks."""
    blocks = model.model.layers
    return {
        "mlp": [block.mlp.down_proj.in_features for block in blocks],
        "kv_heads": [
            block.self_attn.k_proj.out_features // block.self_attn.head_dim for block in blocks
        ],
    }


def speed(repeats: int) -> dict[str, object]:
    """Time a pass of the dense shape beside the shape that ``structured`` left, in turn."""
    import torch
    from transformers import AutoConfig

    known = json.loads(RESULTS.read_text())["quality"]
    left = next(row for name, row in known.items() if name.startswith("structured "))["shape"]
    config = AutoConfig.from_pretrained(smollm2())
    small = AutoConfig.from_pretrained(smollm2())
    queries = config.num_attention_heads // config.num_key_value_heads
    small.head_dim = config.hidden_size // config.num_attention_heads
    small.intermediate_size, small.num_key_value_heads = left["mlp"][0], left["kv_heads"][0]
    small.num_attention_heads = small.num_key_value_heads * queries
    small.num_hidden_layers = len(left["mlp"])
    rows: dict[str, object] = {"threads": torch.get_num_threads(), "repeats": repeats}
    for dtype in (torch.bfloat16, torch.float32):
        models = [shaped(each, dtype) for each in (config, small)]
        sizes = [sum(p.numel() for p in model.parameters()) for model in models]
        rows["parameter_ratio"] = round(sizes[0] / sizes[1], 4)
        for length in (1, 128):
            seconds = interleaved(models, length, repeats)
            ratio = median(dense / small for dense, small in zip(*seconds, strict=True))
            rows[f"{str(dtype).removeprefix('torch.')} {length} tokens"] = {
                "dense_ms": round(1e3 * min(seconds[0]), 2),
                "small_ms": round(1e3 * min(seconds[1]), 2),
                "speedup": round(ratio, 3),
                "of_parameter_ratio": round(ratio / rows["parameter_ratio"], 3),
            }
    return rows


def shaped(config, dtype):
    """Return a model of a configuration without drawing weights, whose values cost no time."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    model = model.to_empty(device="cpu")
    model.tie_weights()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(0.01)
    return model


def interleaved(models, length: int, repeats: int) -> list[list[float]]:
    """Return the seconds of passes of every model, taken in turn after one that does not count."""
    import torch

    ids = torch.arange(length)[None]
    seconds: list[list[float]] = [[] for _ in models]
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            for model, taken in zip(models, seconds, strict=True):
                started = time.perf_counter()
                model(input_ids=ids, use_cache=False)
                if repeat:
                    taken.append(time.perf_counter() - started)
    return seconds


def in_a_process(
    method: str, windows: str, length: int, evaluated: int, minutes: float
) -> dict[str, object]:
    """Measure in a process of its own, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.structured", "quality"]
        command += ["--method", method, "--windows", windows, "--length", str(length)]
        command += ["--evaluated", str(evaluated), "--minutes", str(minutes)]
        command += ["--worker", str(file)]
        subprocess.run(command, check=True)
        return json.loads(file.read_text())


def merge(part: str, name: str, row: dict[str, object]) -> None:
    """Add a row to the results."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known.setdefault(part, {})[name] = row
    write_text(RESULTS, json.dumps(known, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("quality", "speed"))
    parser.add_argument("--method", action="append", help="repeatable; the methods without it")
    parser.add_argument("--windows", action="append", help="A:B, repeatable; two sets without it")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a calibration window")
    parser.add_argument("--evaluated", type=int, default=20, help="windows to evaluate on, at most")
    parser.add_argument("--minutes", type=float, default=0.0, help="of healing, none without it")
    parser.add_argument("--repeats", type=int, default=15, help="of every pass that is timed")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "speed":
        if (busy := busy_percent()) > QUIET_PERCENT:
            parser.error(f"others take {busy:.0f} % of the processor; time on a quiet machine")
        row = {"busy_percent": busy} | speed(options.repeats) | provenance(*PACKAGES)
        merge("speed", "structured", row)
        print(json.dumps(row, indent=1))
        return
    methods = options.method or ["dense", *METHODS]
    sizes = (options.length, options.evaluated, options.minutes)
    if options.worker:
        found = quality(methods[0], options.windows[0], *sizes)
        options.worker.write_text(json.dumps(found))
        return
    for windows, method in product(options.windows or SETS, methods):
        row = {"load_before": round(os.getloadavg()[0], 2)} | in_a_process(method, windows, *sizes)
        name = method if method == "dense" else f"{method} {windows} x {options.length}"
        name += f", {options.minutes:g} minutes" if "healed" in row else ""
        merge("quality", name, row | provenance(*PACKAGES))
        for each in (row, row.get("healed")):
            if each:
                print(name, each["perplexity"], each["emma"], flush=True)


if __name__ == "__main__":
    main()
