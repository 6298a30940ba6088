"""What is needed to make a pruned model again, and what its record does not say."""

from __future__ import annotations

__all__ = ["facts", "missing"]

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.numbers import percent
from .coverage import healing_rows

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

_UNKNOWN = "not recorded"


def facts(record: PruneRecord) -> dict[str, str]:
    """Return how a model was made, a fact to a row.

    Parameters
    ----------
    record : PruneRecord
        What records of earlier versions do not say is said to be not recorded.
    """
    made = record.made
    return {
        "command": f"`{made['command']}`" if "command" in made else _UNKNOWN,
        "model": record.model,
        "method": record.method,
        "recipe": f"`{record.recipe}`",
        "pattern": record.pattern,
        "density": f"{percent(record.density)} ({percent(record.density_asked)} asked)",
        "calibration": _listed(record.calibration, ": "),
        "seed": "the recipe's, where it names one; windows are taken in the order of the text",
        **healing_rows(record),
        "evaluation": _evaluation(record.evaluation),
        "date": made.get("date", _UNKNOWN),
        "device": made.get("device", _UNKNOWN),
        "processor": made.get("processor", _UNKNOWN),
        "commit": made.get("commit", "none: an installed package") if made else _UNKNOWN,
        "versions": _listed(record.versions, " "),
    }


def missing(record: PruneRecord, folder: str | Path) -> dict[str, str]:
    """Return how to get what was not measured, by the part of the report that lacks it.

    Parameters
    ----------
    record : PruneRecord
        The run.
    folder : str or Path
        Where the model lies.
    """
    place, dense = shlex.quote(str(folder)), shlex.quote(record.model)
    evaluate = f"`thresher eval {place} --text FILE --dense {dense} --save`"
    held = record.evaluation
    without = held.get("no_samples")
    found = {
        "quality": f"What it cost was not measured. {evaluate} measures it.",
        "error": "No standard error: the losses of single windows were not kept. "
        f"{evaluate} keeps them.",
        "samples": f"No sample text: {without}."
        if without
        else f"No sample text was written. {evaluate} has both models write some.",
        "tasks": "No task was measured. "
        f"`thresher eval {place} --tasks TASKS --dense {dense} --save` measures accuracy on "
        "questions of yours or on tasks of lm-evaluation-harness.",
        "sizes": "Bytes on disk were not noted; `thresher prune` notes them.",
        "speed": f"Speed was not measured. `thresher bench {place} --dense {dense} --save` times "
        "both models on the machine that it runs on.",
    }
    if held.get("no_text"):
        load = f"`AutoModel.from_pretrained({str(folder)!r})`"
        found |= {
            "quality": "What it cost was not measured: the model writes no text, by which "
            f"`thresher eval` judges. {load} loads it in Python, after `import thresher`.",
            "samples": "No sample text: the model writes none.",
            "tasks": "No task was measured: `thresher eval` asks models that write text.",
            "speed": "Speed was not measured: `thresher bench` times models that write text.",
        }
    present = {
        "quality": "pruned_perplexity" in held,
        "error": "pruned_perplexity" not in held or len(held.get("pruned_losses") or ()) > 1,
        "samples": bool(held.get("samples")),
        "tasks": bool(record.tasks),
        "sizes": "sparse_bytes" in held,
        "speed": bool(record.speed),
    }
    return {part: text for part, text in found.items() if not present[part]}


def _evaluation(held: Mapping[str, Any]) -> str:
    if "text" not in held:
        return "none recorded"
    windows = f", {held['windows']} windows" if "windows" in held else ""
    return f"{held['text']}{windows}" + (f" of {held['length']} tokens" if "length" in held else "")


def _listed(values: Mapping[str, object], joint: str) -> str:
    return ", ".join(f"{key}{joint}{value}" for key, value in values.items()) or _UNKNOWN
