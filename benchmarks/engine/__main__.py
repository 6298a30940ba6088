"""Tokens per second and perplexity of one model: the engine, llama.cpp and torch.

    python -m benchmarks.engine                                  # SmolLM2, some minutes
    python -m benchmarks.engine --model FOLDER --repeats 9
    python -m benchmarks.engine --tokens 4 --prompt 16 --repeats 1 --windows 1   # whether it runs

The model is written as GGUF files of Q4_0 and Q4_1, and every library runs the very same files:
torch makes the weights of Q4_1 dense. All of them decode greedily after a prompt, and read a longer
prompt, in turn, several rounds of it; medians count. torch also reads the prompt compiled.
llama.cpp (by llama-cpp-python, where that is installed) has the number of threads with which it is
fastest, and the better of both files. Results are merged into ``benchmarks/results/engine.json``;
run it on a quiet machine.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

import thresher as th
from thresher.assets import smollm2, state_of_the_union
from thresher.core.files import write_text
from thresher.parts.calibration import token_windows
from thresher.run import _run
from thresher.run.engine.gguf.write import export_gguf
from thresher.run.evaluate import perplexity
from thresher.run.measure.runners import LlamaCpp, Ours, Runner

from .. import machine
from .runners import Compiled, Torch, decoding, reading

RESULTS = Path(__file__).parents[1] / "results" / "engine.json"
KINDS = ("q4_0", "q4_1")
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}
PACKAGES = ("thresher", "torch", "transformers", "llama-cpp-python")
#: Tokens of the prompt that is gone on from, and of a window that perplexity is measured on.
BEFORE, LENGTH = 64, 512


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def fastest_threads(path: Path, prompt: np.ndarray, tokens: int, context: int) -> int:
    """Return with how many threads llama.cpp decodes fastest."""
    found = {}
    for threads in range(1, (os.cpu_count() or 1) + 1):
        runner = LlamaCpp(path, threads, context)
        found[threads] = min(seconds(decoding(runner, prompt, tokens)) for _ in range(2))
        runner.close()
    return min(found, key=found.__getitem__)


def timed(
    runners: dict[str, Runner], ids: np.ndarray, given: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """Return tokens per second of every repeat, by runner and by what it does."""
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in runners}
    works = {
        "decoding": (lambda runner: decoding(runner, ids[:BEFORE], given.tokens), given.tokens),
        "prompt": (lambda runner: reading(runner, ids[: given.prompt]), given.prompt),
    }
    for repeat in range(given.repeats + 1):
        for name, runner in runners.items():
            for what, (prepared, count) in works.items():
                if what == "decoding" and isinstance(runner, Compiled):
                    continue
                rate = count / seconds(prepared(runner))
                if repeat:  # the first warms up
                    rates[name].setdefault(what, []).append(rate)
    return rates


def measure(folder: Path, given: argparse.Namespace) -> dict[str, object]:
    """Measure one model."""
    from transformers import AutoTokenizer

    windows = token_windows(
        AutoTokenizer.from_pretrained(folder),
        state_of_the_union(2014, 2021),
        length=LENGTH,
        count=given.windows,
    )
    ids = windows[0].numpy()
    context = max(LENGTH, BEFORE + given.tokens + 1, given.prompt)
    busy = machine.busy_percent()
    with tempfile.TemporaryDirectory() as name:
        files = {kind: Path(name) / f"{kind}.gguf" for kind in KINDS}
        for kind, path in files.items():
            export_gguf(folder, path, kind)
        rivals = files if find_spec("llama_cpp") else {}
        threads = rivals and fastest_threads(files["q4_0"], ids[:BEFORE], given.tokens, context)
        ours = {f"ours, {kind}": Ours(th.Engine(path)) for kind, path in files.items()}
        runners: dict[str, Runner] = dict(ours)
        for kind, path in rivals.items():
            runners[f"llama.cpp, {kind}"] = LlamaCpp(path, threads, context)
        for dtype in DTYPES:
            runners[f"torch, {dtype}"] = Torch(files["q4_1"], DTYPES[dtype])
            runners[f"torch.compile, {dtype}"] = Compiled(files["q4_1"], DTYPES[dtype])
        rates = timed(runners, ids, given)
        for kind, path in rivals.items():
            runners[f"llama.cpp, {kind}"] = LlamaCpp(path, threads, context, every=True)
        rows: dict[str, object] = {}
        for name, runner in runners.items():
            logits = (runner.logits(window.numpy())[:-1] for window in windows)
            rows[name] = {
                "perplexity": perplexity(logits, windows),
                **{what: statistics.median(each) for what, each in rates[name].items()},
                "repeats": rates[name],
            }
    return {
        "rows": rows,
        "decoded": [BEFORE, given.tokens],
        "prompt": given.prompt,
        "windows": list(windows.shape),
        "threads": {"ours and torch": torch.get_num_threads(), "llama.cpp": threads or None},
        "instructions": _run.active_isa(),
        "busy_percent": busy,
        **machine.provenance(*PACKAGES),
    }


def show(found: dict) -> None:
    """Print the medians, and their ratios to the better of llama.cpp's; without it, of torch's."""
    rows = found["rows"]
    rival = "torch" if found["threads"]["llama.cpp"] is None else "llama.cpp"
    rivals = [row for name, row in rows.items() if name.startswith(rival)]
    best = {w: max(row[w] for row in rivals if w in row) for w in ("decoding", "prompt")}
    if rival == "torch":
        print("llama-cpp-python is not installed: ratios are to torch")
    print(f"{found['machine']['processor']}, {found['instructions']}, threads {found['threads']}")
    print(f"{'':18}{'decoding/s':>12}{'':8}{'prompt/s':>12}{'':8}{'perplexity':>12}")
    for name, row in rows.items():
        each = "".join(
            f"{row[what]:12.1f}{row[what] / best[what]:7.2f}x" if what in row else f"{'-':>20}"
            for what in best
        )
        print(f"{name:18}{each}{row['perplexity']:12.3f}")
    if found["busy_percent"] > machine.QUIET_PERCENT:
        print(f"others took {found['busy_percent']:.0f} % of the processor: not to be relied on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a folder of transformers; SmolLM2 without it")
    parser.add_argument("--tokens", type=int, default=64, help=f"to decode after {BEFORE}")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt to read")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--windows", type=int, default=4, help="to measure perplexity on")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to merge into")
    given = parser.parse_args()
    found = measure(given.model or smollm2(), given)
    show(found)
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    name = given.model.name if given.model else "smollm2"
    known[f"{name}, {found['instructions']}"] = found  # machines of other tiers beside one another
    write_text(given.out, json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
