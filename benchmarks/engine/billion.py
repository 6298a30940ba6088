"""A Llama of 1.1 billion random weights: the engine beside llama.cpp, and what memory gives.

    python -m benchmarks.engine.billion                 # two minutes; needs llama-cpp-python

The shape is TinyLlama's, with SmolLM2's vocabulary and tokenizer. Both run the same GGUF file of
Q4_0, decode greedily after a prompt and read one, in turn; medians count. How far their logits lie
apart is told too, since random weights have no perplexity to speak of. The read bandwidth is that
of a sum over more than any cache holds, in the same rounds. Results are merged into
``benchmarks/results/engine.json``; run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

import thresher as th
from thresher.assets import smollm2
from thresher.core.files import write_text
from thresher.run import _run
from thresher.run.engine.gguf.write import export_gguf
from thresher.run.measure.runners import LlamaCpp, Ours, Runner

from .. import machine
from .__main__ import BEFORE, PACKAGES, RESULTS, fastest_threads, seconds
from .runners import decoding, reading

#: Bytes that are read to know the bandwidth.
_READ = 1 << 30


def random_llama(folder: Path) -> Path:
    """Write the model of random weights into a folder."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
    )
    torch.manual_seed(0)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to_empty(device="cpu").to(torch.bfloat16)
    model.init_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rounds(runners: dict[str, Runner], ids: np.ndarray, given: argparse.Namespace) -> dict:
    """Return what every round found: tokens per second by runner, and bytes per second read."""
    long = torch.ones(_READ // 8, dtype=torch.int64)
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in runners}
    read = []
    for repeat in range(given.repeats + 1):
        gone = seconds(lambda: int(long.sum()))
        for name, runner in runners.items():
            took = {
                "decoding": given.tokens / seconds(decoding(runner, ids[:BEFORE], given.tokens)),
                "prompt": given.prompt / seconds(reading(runner, ids[: given.prompt])),
            }
            for what, rate in took.items() if repeat else ():  # the first warms up
                rates[name].setdefault(what, []).append(rate)
        read += [_READ / gone] if repeat else []
    return {"rates": rates, "read": read}


def measure(given: argparse.Namespace) -> dict[str, object]:
    """Measure the model."""
    ids = np.random.default_rng(0).integers(100, 40000, max(BEFORE + given.tokens, given.prompt))
    busy = machine.busy_percent()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "q4_0.gguf"
        export_gguf(random_llama(Path(name) / "model"), path, "q4_0")
        size, context = path.stat().st_size, len(ids) + 8
        threads = fastest_threads(path, ids[:BEFORE], 8, context)
        logits = {}
        for kind, runner in (
            ("ours", Ours(th.Engine(path))),
            ("llama.cpp", LlamaCpp(path, threads, context, every=True)),
        ):
            logits[kind] = np.asarray(runner.logits(ids[:BEFORE]))
        apart = np.linalg.norm(logits["ours"] - logits["llama.cpp"])
        runners = {
            "ours, q4_0": Ours(th.Engine(path)),
            "llama.cpp, q4_0": LlamaCpp(path, threads, context),
        }
        found = rounds(runners, ids, given)
    medians = {
        name: {what: statistics.median(each) for what, each in of.items()}
        for name, of in found["rates"].items()
    }
    read = statistics.median(found["read"])
    return {
        "rows": {n: {**medians[n], "repeats": of} for n, of in found["rates"].items()},
        "file_bytes": size,
        "read_bytes_per_second": read,
        "share_of_bandwidth": {n: of["decoding"] * size / read for n, of in medians.items()},
        "logits_apart": float(apart / np.linalg.norm(logits["llama.cpp"])),
        "decoded": [BEFORE, given.tokens],
        "prompt": given.prompt,
        "threads": {"ours": torch.get_num_threads(), "llama.cpp": threads},
        "instructions": _run.active_isa(),
        "busy_percent": busy,
        **machine.provenance(*PACKAGES),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=64, help=f"to decode after {BEFORE}")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt to read")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to merge into")
    given = parser.parse_args()
    found = measure(given)
    print(json.dumps({k: v for k, v in found.items() if k != "rows"}, indent=1))
    for name, row in found["rows"].items():
        print(f"{name:18}{row['decoding']:10.1f} tokens/s{row['prompt']:10.1f} in a prompt")
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    known[f"1.1 billion, {found['instructions']}"] = found
    write_text(given.out, json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
