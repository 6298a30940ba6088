"""Tokens per second of `generate`, dense bfloat16 beside packed.

    python -m benchmarks.generate [--model random-1b] [--density 0.5]

Two models at batch 1: a Llama-shaped one of about 1 billion random weights, whose quality is
beside the point but whose bytes are not, and SmolLM2-135M. Each is cut by magnitude to the
density, packed by measurement and timed beside its dense self, in turn. Results are merged into
``benchmarks/results/generate.json``.
"""

import argparse
import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import thresher as th
from thresher.assets import smollm2
from thresher.core.files import write_text
from thresher.run.measure.bench import bench
from thresher.run.packed.linear import PackedLinear

from . import machine
from .kernels import environment

RESULTS = Path(__file__).parent / "results" / "generate.json"
MODELS = ("random-1b", "smollm2")
DENSITIES = (0.5, 0.3)


def random_llama() -> Any:
    """Return a model of about 1 billion bfloat16 weights, in the shape of Llama-3.2-1B."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    torch.set_default_dtype(torch.bfloat16)
    try:
        return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def dense_model(name: str) -> Any:
    """Return one of :data:`MODELS` in bfloat16."""
    from transformers import AutoModelForCausalLM

    if name == "random-1b":
        return random_llama()
    return AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.bfloat16).eval()


def measure(dense: Any, density: float, tokens: int) -> dict[str, object]:
    """Prune and pack a copy of the model, and time both."""
    packed = copy.deepcopy(dense)
    th.prune(packed, "magnitude", density=density)
    th.pack(packed, batch=(1,), show=False)
    found = bench(dense, packed, new_tokens=tokens, repeats=5)
    layouts = [m.layout.name for m in packed.modules() if isinstance(m, PackedLinear)]
    return {
        "parameters": sum(p.numel() for p in dense.parameters()),
        "density": density,
        "tokens_per_second": found.tokens_per_second,
        "speedup": found.speedup,
        "weight_bytes": found.weight_bytes,
        "bytes_per_token": found.moved_bytes,
        "packed_layers": {name: layouts.count(name) for name in sorted(set(layouts))},
        "noisy": found.noisy,
        "new_tokens": tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, help="one model; both without it")
    parser.add_argument("--density", type=float, help="one density; 0.5 and 0.3 without it")
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    for name in [options.model] if options.model else MODELS:
        dense = dense_model(name)
        for density in [options.density] if options.density else DENSITIES:
            busy = machine.busy_percent()
            row = measure(dense, density, options.tokens)
            row |= {"busy_percent": busy, "date": datetime.now(UTC).date().isoformat()}
            row |= {"machine": environment.description()}
            known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            known[f"{name} at {density:.0%}"] = row
            write_text(RESULTS, json.dumps(known, indent=1) + "\n")
            print(f"{name} at {density:.0%}: {row['speedup']:.2f}x", row["tokens_per_second"])


if __name__ == "__main__":
    main()
