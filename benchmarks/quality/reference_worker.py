"""Run one case in the peer's environment and print its figures as one line of JSON.

Started by :mod:`benchmarks.quality.reference`; imports nothing of Thresher.
"""

import argparse
import json
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.quality.perplexity import perplexity
from benchmarks.quality.windows import window_slice

# Method, sparsity, N:M pattern (llm-compressor writes "0:0" for unstructured; in "2:4" the
# first number counts the zeros).
CASES = {
    "dense": None,
    "magnitude-50": ("magnitude", 0.5, "0:0"),
    "sparsegpt-50": ("sparsegpt", 0.5, "0:0"),
    "wanda-50": ("wanda", 0.5, "0:0"),
    "sparsegpt-2:4": ("sparsegpt", 0.5, "2:4"),
    "wanda-2:4": ("wanda", 0.5, "2:4"),
    "sparsegpt-70": ("sparsegpt", 0.7, "0:0"),
    "wanda-70": ("wanda", 0.7, "0:0"),
}


def prune_by_magnitude(model: PreTrainedModel, sparsity: float) -> None:
    """Remove the smallest weights of each layer, with PyTorch's own tool."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name != "lm_head":
            prune.l1_unstructured(layer, "weight", amount=sparsity)
            prune.remove(layer, "weight")


def prune_by_peer(
    model: PreTrainedModel, method: str, sparsity: float, pattern: str, windows: np.ndarray
) -> None:
    """Run llm-compressor's one-shot pruning, block by block, with its defaults."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier

    head_weights = model.lm_head.weight.count_nonzero()
    modifier = {"sparsegpt": SparseGPTModifier, "wanda": WandaPruningModifier}[method]
    rows = {"input_ids": windows.tolist(), "attention_mask": np.ones_like(windows).tolist()}
    oneshot(
        model=model,
        dataset=Dataset.from_dict(rows),
        # A plain "lm_head" is not enough: the modifier then prunes the head, and with it the
        # tied embeddings.
        recipe=modifier(
            sparsity=sparsity, mask_structure=pattern, targets=["Linear"], ignore=["re:.*lm_head"]
        ),
        num_calibration_samples=len(windows),
        max_seq_length=windows.shape[1],
        shuffle_calibration_samples=False,
        batch_size=1,
    )
    if model.lm_head.weight.count_nonzero() != head_weights:
        raise RuntimeError("llm-compressor pruned the head, which this comparison keeps dense")


def pruned_density(model: PreTrainedModel) -> float:
    """Return the fraction of non-zero weights in the linear layers other than the head."""
    weights = [
        layer.weight
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name != "lm_head"
    ]
    return sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)


def measure(given: argparse.Namespace) -> dict[str, object]:
    """Prune, then evaluate; time and peak memory are those of the pruning call alone."""
    torch.set_num_threads(given.threads)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval()
    calibration = np.load(given.tokens / "calibration.npy")[given.windows]
    started = time.perf_counter()
    recipe = CASES[given.case]
    if recipe is not None:
        method, sparsity, pattern = recipe
        if method == "magnitude":
            prune_by_magnitude(model, sparsity)
        else:
            prune_by_peer(model, method, sparsity, pattern, calibration)
    seconds = time.perf_counter() - started
    # ru_maxrss, in KiB on Linux, is the process's peak so far: with loading, before evaluation.
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if given.keep:
        model.save_pretrained(given.keep)
    return {
        "perplexity": perplexity(model, np.load(given.tokens / "evaluation.npy")),
        "density": pruned_density(model),
        "prune_seconds": round(seconds, 1),
        "peak_rss_gib": round(peak_kib / 2**20, 3),
        "threads": torch.get_num_threads(),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("torch", "transformers", "llmcompressor", "compressed-tensors")
            },
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", required=True, choices=CASES)
    parser.add_argument("--windows", required=True, type=window_slice)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--tokens", required=True, type=Path)
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the pruned model")
    given = parser.parse_args()
    given.out.write_text(json.dumps(measure(given)))


if __name__ == "__main__":
    main()
