"""One model of a comparison, made and measured in a process of its own.

What a model costs in time and peak memory is then its own, and what ends one process ends no other.
"""

from __future__ import annotations

__all__ = ["run_cell"]

import os
import shutil
import traceback
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .comparing_plan import Plan, load_rows, save_row
from .core.device import device_named
from .core.errors import ThresherError
from .core.files import write_text
from .core.progress import progress_bar
from .prune.comparison import DENSE
from .prune.disk import peak_memory, prune_folder
from .prune.heal.folder import heal_folder
from .prune.heal.session import HealOptions
from .prune.record import PruneRecord
from .prune.smaller_recipe import SmallerRecipe
from .report.html import write_report
from .run.evaluate import compare, perplexity
from .run.files.companions import RECORD_FILE
from .run.measure.bench import bench, fastest
from .run.measure.choice import DENSE as LEFT_DENSE
from .run.measure.choice import Choices
from .run.pack import choose_layouts
from .run.tasks import evaluate_tasks
from .shrinking import shrink_folder
from .stream.outputs import folder_logits
from .stream.samples import as_samples
from .workflow import check_room, load_model, load_tokenizer, read_record, weight_sizes

_NEW_TOKENS = 32
#: Rows per product that layouts are chosen for: text is generated from a prompt, token by token.
_BATCH = (1, 16)
_RIVALS = (torch.bfloat16, torch.float32)


def run_cell(work: Path, name: str, step: str) -> None:
    """Make a model, or time it, and note what was found, or why it could not be done.

    Parameters
    ----------
    work : Path
        The comparison's work folder.
    name : str
        Of the row.
    step : {"make", "time"}
        What to do.
    """
    cell = _Run(work, name)
    try:
        cell.make() if step == "make" else cell.time()
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else "no message"
        if not isinstance(error, ThresherError):
            traceback.print_exc()
            said = f"{type(error).__name__}: {said}"
        if step == "make":
            cell.row.error = said
        else:
            cell.row.missing["tokens_per_second"] = said
    save_row(work, cell.row)


class _Run:
    """The steps for one row."""

    def __init__(self, work: Path, name: str) -> None:
        self.work, self.plan, self.rows = work, Plan.load(work), load_rows(work)
        self.row, self.source = self.rows[name], Path(self.plan.source)
        self.windows = Plan.windows(work)
        dense = name == DENSE
        self.folder = self.source if dense else work / "made" / "models" / name

    def make(self) -> None:
        """Prune, heal and evaluate; what an earlier process has noted is not done again."""
        if self.row.name == DENSE:
            self.row.density = 1.0
        elif self.row.seconds is None or not self.folder.exists():
            self._make_model()
        self._evaluate()

    def _make_model(self) -> None:
        """Prune and heal in the work folder, where what was begun may stay behind."""
        row, windows, text = self.row, self.windows["calibration"], self.plan.text
        cell = next(each for each in self.plan.cells if each.name == row.name)
        made = self.work / "pruned" / row.name
        described = {"source": text["source"], "windows": len(windows), "length": text["length"]}
        recipe = cell.recipe
        if isinstance(recipe, SmallerRecipe):
            record = shrink_folder(self.source, made, recipe, windows, described)
        else:
            record = prune_folder(self.source, made, recipe, windows, calibration=described)
        row.density, row.seconds, row.peak_bytes = record.density, record.seconds, record.peak_bytes
        if self.plan.heal:
            made = self._healed(made, self.plan.heal)
        save_row(self.work, row)
        os.rename(made, self.folder)
        # What was healed is of no use once the result is in its place.
        shutil.rmtree(self.work / "pruned" / row.name, ignore_errors=True)

    def _healed(self, pruned: Path, minutes: float) -> Path:
        windows, folder = self.windows["heal"], self.work / "healed" / self.row.name
        options = HealOptions(minutes, len(windows), windows.shape[1])

        def read(model: Any) -> list[Any]:
            return as_samples(model, windows)[0]

        name = f"{self.plan.text['source']}, without what is held out"
        healed = heal_folder(pruned, self.source, folder, read, name, options)
        self.row.seconds = (self.row.seconds or 0.0) + healed.seconds
        self.row.peak_bytes = max(self.row.peak_bytes or 0, peak_memory())
        return folder

    def _evaluate(self) -> None:
        """Find perplexities and the distance to the dense model, from disk."""
        row, held_out, other = self.row, self.windows["held_out"], self.windows.get("other")
        sizes = weight_sizes(self.folder)
        if row.name == DENSE:
            value = perplexity(folder_logits(self.source, held_out), held_out)
            row.kl, row.top1_agreement = 0.0, 1.0
        else:
            value = self._beside_dense(held_out, sizes)
        if other is not None:
            row.other_perplexity = perplexity(folder_logits(self.folder, other), other)
        if self.plan.tasks is not None:
            model = load_model(self.folder).to(device_named("auto"))
            row.tasks = evaluate_tasks(model, load_tokenizer(self.folder), self.plan.tasks)
        row.stored_bytes = sizes["sparse_bytes"]
        # Last, as it says that all of this is known.
        row.perplexity = value

    def _beside_dense(self, held_out: torch.Tensor, sizes: dict[str, int]) -> float:
        record = read_record(self.folder)
        with progress_bar(2 * record.blocks, lines=True) as advance:
            dense, pruned = (
                folder_logits(each, held_out, advance=advance)
                for each in (self.source, self.folder)
            )
            found = compare(dense, pruned, held_out)
        self.row.kl, self.row.top1_agreement = found.kl, found.top1_agreement
        self._report(record, sizes | asdict(found))
        return found.pruned_perplexity

    def _report(self, record: PruneRecord, found: dict[str, Any]) -> None:
        """Complete the model's own record and report."""
        held_out = self.windows["held_out"]
        told = {"text": f"{self.plan.text['source']}, held out", "windows": len(held_out)}
        record.evaluation = {**found, **told, "length": held_out.shape[1]}
        write_text(self.folder / RECORD_FILE, record.to_json())
        write_report(record, self.folder / "report.html")

    def time(self) -> None:
        """Generate text with the model and the dense one in turn, both in their fastest form."""
        row, place = self.row, device_named("auto")
        check_room(self.folder, _NEW_TOKENS)
        if row.name == DENSE:
            rivals = {str(d)[6:]: load_model(self.source, d).to(place) for d in _RIVALS}
            row.layouts, row.dtype = LEFT_DENSE, fastest(rivals, _NEW_TOKENS)
            # Beside itself, which shows what differs by chance.
            dense = packed = rivals[row.dtype]
        elif read_record(self.folder).structure:
            row.layouts, row.dtype = LEFT_DENSE, self.rows[DENSE].dtype
            dtype = getattr(torch, row.dtype)
            dense, packed = (load_model(f, dtype).to(place) for f in (self.source, self.folder))
        else:
            packed = load_model(self.folder, torch.bfloat16).to(place)
            choices = choose_layouts(packed, _BATCH)
            row.layouts, row.dtype = _layouts(choices), "bfloat16"
            if row.layouts == LEFT_DENSE:
                self._runs_dense()
                return
            choices.apply(packed)
            dtype = getattr(torch, self.rows[DENSE].dtype)
            dense = load_model(self.source, dtype).to(place)
        found = bench(dense, packed, new_tokens=_NEW_TOKENS)
        row.packed_bytes, row.noisy = found.weight_bytes["packed"], found.noisy
        row.tokens_per_second, row.speedup = found.tokens_per_second["packed"], found.speedup
        row.speedup_least, row.speedup_most = found.spread

    def _runs_dense(self) -> None:
        """Take the dense model's figures, as no layer is faster in another layout."""
        dense = self.rows[DENSE]
        self.row.dtype, self.row.packed_bytes = dense.dtype, dense.packed_bytes
        self.row.tokens_per_second, self.row.speedup = dense.tokens_per_second, 1.0


def _layouts(choices: Choices) -> str:
    """Return how many of the layers that could be packed have which layout."""
    counts = Counter(layer.layout for layer in choices.layers if layer.seconds)
    if set(counts) <= {LEFT_DENSE}:
        return LEFT_DENSE
    return ", ".join(f"{count} {layout}" for layout, count in counts.most_common())
