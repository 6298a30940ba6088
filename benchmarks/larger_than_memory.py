"""Prune a model of about 3 billion parameters in little memory, and report the peak.

    python -m benchmarks.larger_than_memory [--method METHOD] [--folder FOLDER]

A Llama-shaped model with random bfloat16 weights (28 blocks, hidden 3072, feed-forward 8192:
the shape of Llama-3.2-3B) is written once, a block at a time, then pruned to 50 % with Wanda
and with SparseGPT on 8 windows of 256 random tokens. Needs 10 GB of disk.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from thresher.assets import cache_folder
from thresher.run.files.writer import save_tensors

RESULTS = Path(__file__).parent / "results" / "larger-than-memory.json"
HIDDEN, FEED_FORWARD, BLOCKS, HEADS, KEY_HEADS, VOCABULARY = 3072, 8192, 28, 24, 8, 32_000
LIMIT_GIB = 4.0
METHODS = ("wanda", "sparsegpt")


def write_model(folder: Path) -> int:
    """Write the model unless it is there, and return its number of parameters."""
    from transformers import LlamaConfig

    shapes = block_shapes()
    outside = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "lm_head.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    count = BLOCKS * sum(map(size, shapes.values())) + sum(map(size, outside.values()))
    if (folder / "config.json").is_file():
        return count
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    weight_map = {}
    for block in range(BLOCKS + 1):
        names = (
            {f"model.layers.{block}.{name}": shape for name, shape in shapes.items()}
            if block < BLOCKS
            else outside
        )
        file = f"model-{block:05d}.safetensors"
        tensors = {name: random_weight(shape, generator) for name, shape in names.items()}
        save_tensors(tensors, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        tie_word_embeddings=False,
        dtype="bfloat16",
    ).save_pretrained(folder)
    return count


def block_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of one decoder block."""
    key = KEY_HEADS * HIDDEN // HEADS
    return {
        "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
        "self_attn.k_proj.weight": (key, HIDDEN),
        "self_attn.v_proj.weight": (key, HIDDEN),
        "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        "mlp.gate_proj.weight": (FEED_FORWARD, HIDDEN),
        "mlp.up_proj.weight": (FEED_FORWARD, HIDDEN),
        "mlp.down_proj.weight": (HIDDEN, FEED_FORWARD),
        "input_layernorm.weight": (HIDDEN,),
        "post_attention_layernorm.weight": (HIDDEN,),
    }


def size(shape: tuple[int, ...]) -> int:
    """Return the number of entries of a shape."""
    return torch.Size(shape).numel()


def random_weight(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return ones for a norm, else normal weights of the usual initial size."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return (torch.randn(shape, generator=generator) * 0.02).bfloat16()


def measure(method: str, folder: Path) -> dict[str, object]:
    """Prune in this process and return its peak memory."""
    from thresher.prune.disk import prune_folder
    from thresher.prune.memory import as_recipe

    generator = torch.Generator().manual_seed(1)
    windows = torch.randint(0, VOCABULARY, (8, 256), generator=generator)
    out = folder.with_name(f"{folder.name}-{method}")
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    record = prune_folder(folder, out, as_recipe(method).with_options(0.5), windows)
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    return {
        "peak_gib": round(record.peak_bytes / 2**30, 3),
        "limit_gib": LIMIT_GIB,
        "density": record.density,
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "versions": record.versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=cache_folder() / "random-llama-3b")
    parser.add_argument("--method", choices=METHODS, help="one method; both without it")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.worker, options.folder)))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["parameters"] = write_model(options.folder)
    for method in [options.method] if options.method else METHODS:
        command = [sys.executable, "-m", "benchmarks.larger_than_memory", "--worker", method]
        ran = subprocess.run(
            [*command, "--folder", str(options.folder)], check=True, stdout=subprocess.PIPE
        )
        results[method] = json.loads(ran.stdout)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
        print(method, results[method], flush=True)


if __name__ == "__main__":
    main()
