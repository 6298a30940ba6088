"""The table of the documentation: what of which architecture can be removed.

``python -m tests.architectures.groups`` writes ``docs/units.md`` anew; the tests of coupled groups
then hold every row to it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch

from thresher.parts.groups.find import Coupled, find_groups
from thresher.parts.groups.shrink import prove
from thresher.stream.passes import calibrating, call

from .models import ARCHITECTURES

PAGE = Path(__file__).parents[2] / "docs" / "units.md"
NAMED = {
    *("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Gemma3", "Phi3", "GPT2", "OPT"),
    *("Bloom", "Falcon", "GPTNeoX", "StableLm", "Cohere", "SmolLM3", "Mixtral", "Qwen3-MoE"),
    *("OLMoE", "Mamba", "T5", "BART", "Whisper", "BERT", "ViT", "LLaVA", "Swin", "ResNet"),
}
LISTED = [each for each in ARCHITECTURES if each.name in NAMED]
_COLUMNS = ("architecture", "class", "neurons and channels", "heads")
_INTRODUCTION = """# What can be removed of which architecture

Every row is a model class of transformers, built small with random weights, decoders of three
blocks. Numbers are those of its coupled groups of which any unit can go:

- **neurons and channels**: a unit is one column of every layer that takes it;
- **heads**: it is several of them, such as a key-value head with the queries that share it, or of
  each key-value head one of its queries.

The tests remove units of each group by itself, then of all together, and what is left gives exactly
what the model gives with them set to zero. They fail where a row is no longer true. A dash is where
nothing of a kind can go; why what is left whole was is in `thresher.json` and in
`Coupled.pinned` ({func}`~thresher.parts.groups.find.find_groups`).

"""


def groups_of(model: torch.nn.Module, sample: Any) -> tuple[Coupled, Any]:
    """Return a model's groups, each kind of them tried, and what runs a model on the sample."""

    def run(each: torch.nn.Module) -> Any:
        with calibrating(each):
            return call(each, sample)

    return prove(model, find_groups(model, run, sample), run), run


def cells(coupled: Coupled) -> list[str]:
    """Return the numbers of a row."""
    several = [max(m.indices.shape[1] for m in group.consumers) > 1 for group in coupled.groups]
    counts = len(several) - sum(several), sum(several)
    return [str(count) if count else "-" for count in counts]


def documented() -> dict[str, list[str]]:
    """Return what the page says: cells by architecture."""
    rows = re.findall(r"^\| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {line.split(" | ")[0]: line.split(" | ")[2:] for line in rows[1:]}


def main() -> None:
    """Write the page, or print the rows of the architectures that are named."""
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    lines = []
    for each in LISTED:
        if not each.missing and (not wanted or each.name in wanted):
            found = cells(groups_of(each.build(), each.samples(1)[0])[0])
            lines.append("| " + " | ".join([each.name, f"`{each.model}`", *found]) + " |")
    if wanted:
        print("\n".join(lines))
        return
    head = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    PAGE.write_text(_INTRODUCTION + "\n".join([*head, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
