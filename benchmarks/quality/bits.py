"""What rounding to few bits costs: to nearest, and by GPTQ.

    python -m benchmarks.quality.bits                       # SmolLM2, and half of it
    python -m benchmarks.quality.bits --windows 2 --calibration 4

SmolLM2 is published in four bits, on whose grid it would be found again. Here the inputs of its
matrices are rescaled by random factors first, and what makes these inputs by the inverse: the model
is the same, and its weights lie on no grid. Calibrated on windows of the State of the Union
addresses 1950-1990, evaluated on later ones, everything on the engine. Results are merged into
``benchmarks/results/quality-bits.json``.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

import thresher as th
from thresher.assets import smollm2
from thresher.core.files import write_text
from thresher.packing import round_folder
from thresher.run.engine.store import write_store
from thresher.run.evaluate import perplexity
from thresher.run.skeleton import Skeleton

from ..machine import provenance
from .reference import RESULTS as REFERENCE
from .tokens import tokens

RESULTS = REFERENCE.with_name("quality-bits.json")
#: Largest factor of an input.
SPREAD = 1.35
#: Tokens of a calibration window.
LENGTH = 512
CASES = ("bf16", "8 bits", "4 bits", "4 bits, GPTQ")


@torch.no_grad()
def off_grid(model, seed: int):
    """Rescale the inputs of a Llama's matrices, in place; the model stays the same."""
    generator = torch.Generator().manual_seed(seed)
    heads = model.config.num_attention_heads // model.config.num_key_value_heads

    def factors(count: int) -> torch.Tensor:
        return SPREAD ** (2 * torch.rand(count, generator=generator) - 1)

    for block in model.model.layers:
        attention, mlp = block.self_attn, block.mlp
        for norm, readers in (
            (block.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
            (block.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
        ):
            scale = factors(len(norm.weight))
            norm.weight *= scale
            for reader in readers:
                reader.weight /= scale
        scale = factors(len(attention.v_proj.weight))
        attention.v_proj.weight *= scale[:, None]
        by_head = scale.view(-1, attention.head_dim).repeat_interleave(heads, 0)
        attention.o_proj.weight /= by_head.flatten()
        scale = factors(len(mlp.up_proj.weight))
        mlp.up_proj.weight *= scale[:, None]
        mlp.down_proj.weight /= scale
    return model


def source(folder: Path, density: float, seed: int, windows: torch.Tensor) -> Path:
    """Write the model that is rounded, pruned where it is not dense."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = off_grid(AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.float32), seed)
    if density < 1:
        th.prune(model, "sparsegpt", windows, density=density)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(smollm2()).save_pretrained(folder)
    return folder


def engine_of(case: str, folder: Path, out: Path, windows: torch.Tensor) -> th.Engine:
    if case != "4 bits, GPTQ":
        return th.Engine(folder, {"8 bits": 8, "4 bits": 4}.get(case))
    skeleton = Skeleton(folder)
    with tempfile.TemporaryDirectory() as scratch:
        data = round_folder(skeleton, windows, Path(scratch))
    write_store(data, skeleton.model.config.max_position_embeddings, (), None, out)
    return th.Engine(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--density", type=float, action="append", help="1 and 0.5 without it")
    parser.add_argument("--case", choices=CASES, action="append", help="all without it")
    parser.add_argument("--calibration", type=int, default=16, help=f"windows of {LENGTH} tokens")
    parser.add_argument("--windows", type=int, default=4, help="to evaluate on, of 1024 tokens")
    parser.add_argument("--seed", type=int, default=0, help="of the factors")
    given = parser.parse_args()
    cut = torch.from_numpy(np.load(tokens() / "calibration.npy")).reshape(-1, LENGTH)
    cut = cut[: given.calibration]
    evaluated = torch.from_numpy(np.load(tokens() / "evaluation.npy"))[: given.windows]
    for density in given.density or (1.0, 0.5):
        with tempfile.TemporaryDirectory() as name:
            folder = source(Path(name) / "model", density, given.seed, cut)
            for case in given.case or CASES:
                engine = engine_of(case, folder, Path(name) / "packed", cut)
                logits = (engine.logits(window)[:-1] for window in evaluated)
                known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
                known[f"{density:.0%} kept, {case}"] = {
                    "perplexity": perplexity(logits, evaluated),
                    "calibration": list(cut.shape) if "GPTQ" in case or density < 1 else None,
                    "evaluation": list(evaluated.shape),
                    "seed": given.seed,
                    **provenance("torch", "transformers", "numpy"),
                }
                write_text(RESULTS, json.dumps(known, indent=1) + "\n")
        show(known, density)


def show(known: dict[str, dict[str, float]], density: float) -> None:
    """Print perplexities and their ratios to bfloat16."""
    found = {case: known.get(f"{density:.0%} kept, {case}") for case in CASES}
    for case, row in found.items():
        if row is not None:
            ratio = row["perplexity"] / found["bf16"]["perplexity"] if found["bf16"] else 0
            print(f"{density:.0%} kept, {case:14} {row['perplexity']:9.3f} {ratio:7.3f}")


if __name__ == "__main__":
    main()
