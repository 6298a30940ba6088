"""Prune models of 1 and 3 billion parameters in little memory, and report the peak.

    python -m benchmarks.larger_than_memory [--model MODEL] [--method METHOD] [--folder FOLDER]

Llama-shaped models with random bfloat16 weights are written once, a block at a time, then pruned
to 50 % by the command line on 8 windows of 256 tokens, and evaluated on 16 more. The larger one
has the shape of Llama-3.2-3B and needs 10 GB of disk; the smaller one, of TinyLlama-1.1B, 4 GB.
"""

import argparse
import json
import resource
import shutil
import string
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from thresher.assets import cache_folder
from thresher.run.files.writer import save_tensors

from .machine import provenance

RESULTS = Path(__file__).parent / "results" / "larger-than-memory.json"
VOCABULARY = 32_000
METHODS = ("wanda", "sparsegpt")


@dataclass(frozen=True)
class Size:
    """The shape of a model, and the memory that it may take, in GiB."""

    hidden: int
    feed_forward: int
    blocks: int
    heads: int
    key_heads: int
    limit: float


SIZES = {
    "1.1b": Size(2048, 5632, 22, 32, 4, limit=1.6),
    "3b": Size(3072, 8192, 28, 24, 8, limit=4.0),
}


def write_model(folder: Path, size: Size) -> int:
    """Write the model unless it is there, and return its number of parameters."""
    from transformers import LlamaConfig

    shapes = block_shapes(size)
    outside = {
        "model.embed_tokens.weight": (VOCABULARY, size.hidden),
        "lm_head.weight": (VOCABULARY, size.hidden),
        "model.norm.weight": (size.hidden,),
    }
    count = size.blocks * sum(map(entries, shapes.values())) + sum(map(entries, outside.values()))
    if (folder / "config.json").is_file():
        return count
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    weight_map = {}
    for block in range(size.blocks + 1):
        names = (
            {f"model.layers.{block}.{name}": shape for name, shape in shapes.items()}
            if block < size.blocks
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
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.blocks,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        tie_word_embeddings=False,
        dtype="bfloat16",
    ).save_pretrained(folder)
    tokenizer_of_characters().save_pretrained(folder)
    return count


def tokenizer_of_characters():
    """Return a tokenizer that random weights do as well with as with any other."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = {character: number for number, character in enumerate(string.printable)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def block_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Return the shapes of one decoder block."""
    hidden, feed_forward = size.hidden, size.feed_forward
    key = size.key_heads * hidden // size.heads
    return {
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.k_proj.weight": (key, hidden),
        "self_attn.v_proj.weight": (key, hidden),
        "self_attn.o_proj.weight": (hidden, hidden),
        "mlp.gate_proj.weight": (feed_forward, hidden),
        "mlp.up_proj.weight": (feed_forward, hidden),
        "mlp.down_proj.weight": (hidden, feed_forward),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }


def entries(shape: tuple[int, ...]) -> int:
    """Return the number of entries of a shape."""
    return torch.Size(shape).numel()


def random_weight(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return ones for a norm, else normal weights of the usual initial size."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return (torch.randn(shape, generator=generator) * 0.02).bfloat16()


def measure(method: str, folder: Path, size: Size) -> dict[str, object]:
    """Prune and evaluate by the command in a process of its own; return its peak memory."""
    from thresher.prune.record import PruneRecord

    out = folder.with_name(f"{folder.name}-{method}")
    options = ["--density", "0.5", "--windows", "8", "--length", "256", "--overwrite"]
    command = [sys.executable, "-m", "thresher", "prune", str(folder), "--method", method]
    start = time.perf_counter()
    subprocess.run([*command, *options, "--out", str(out)], check=True)
    seconds = time.perf_counter() - start
    record = PruneRecord.from_json((out / "thresher.json").read_text())
    shutil.rmtree(out)
    return {
        "peak_gib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 3),
        "limit_gib": size.limit,
        "density": record.density,
        "evaluated": "pruned_perplexity" in record.evaluation,
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
    } | provenance("torch", "transformers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=cache_folder())
    parser.add_argument("--model", choices=SIZES, help="one model; both without it")
    parser.add_argument("--method", choices=METHODS, help="one method; both without it")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        folder, size = options.folder, SIZES[options.model]
        print(json.dumps(measure(options.method, folder, size)))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for model in [options.model] if options.model else SIZES:
        folder = options.folder / f"random-llama-{model}"
        found = results.setdefault(model, {})
        found["parameters"] = write_model(folder, SIZES[model])
        for method in [options.method] if options.method else METHODS:
            found[method] = in_a_process_of_its_own(model, method, folder)
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
            print(model, method, found[method], flush=True)


def in_a_process_of_its_own(model: str, method: str, folder: Path) -> dict[str, object]:
    """Return :func:`measure`, whose process has no other child than the one it is about."""
    command = [sys.executable, "-m", "benchmarks.larger_than_memory", "--worker"]
    case = ["--model", model, "--method", method, "--folder", str(folder)]
    ran = subprocess.run([*command, *case], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(ran.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
