"""``thresher prune`` with methods that make a model smaller: in memory, and into a plain folder."""

from __future__ import annotations

__all__ = ["job_for", "shrink_folder"]

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table
from torch import nn

from .choosing import ChoosingJob
from .cli_options import AUTO
from .core.device import device_named
from .core.errors import OptionError
from .core.files import write_text
from .core.numbers import number
from .core.output import writing
from .core.remembered import remembered
from .core.terminal import manner, show
from .prune.disk import peak_memory
from .prune.memory import prune
from .prune.record import PruneRecord
from .prune.smaller import as_smaller_recipe
from .prune.smaller_recipe import SmallerRecipe
from .report.pages import write_pages
from .report.structure import structure_rows
from .report.tables import record_data
from .run.evaluate import compare
from .run.files.companions import RECORD_FILE
from .run.files.export import check_savable
from .workflow import (
    PruneJob,
    described,
    load_model,
    load_tokenizer,
    weight_sizes,
    written,
)

#: Options of the command that removing units has no use for, and what they are by default.
_OTHERS = {
    "pattern": None,
    "budget": None,
    "update": None,
    "tokens": None,
    "stages": None,
    "spill": False,
    "curve": False,
    "unseen": "magnitude",
    "precision": "auto",
}


def job_for(model: str, **options: Any) -> PruneJob:
    """Return what ``thresher prune`` is to do, for any method."""
    if as_smaller_recipe(options["method"]) is not None:
        return ShrinkJob(model, **options)
    return (ChoosingJob if options["density"] == AUTO else PruneJob)(model, **options)


class ShrinkJob(PruneJob):
    """``thresher prune`` with a method that makes a model smaller; see :class:`PruneJob`."""

    def run(self) -> None:
        """Prune, write the folder, evaluate, and print what was removed."""
        with ExitStack() as stack:
            output = stack.enter_context(writing(self.out, "prune"))
            output.check_free(self.options["overwrite"])
            output.restart()
            place = device_named(self.options["device"])
            dense = load_model(self.source, self.dtype).to(place)
            check_savable(dense)
            self._announce()
            small = prune(
                dense,
                self.recipe,
                self.calibration,
                include=self.options["include"],
                exclude=self.options["exclude"],
            )
            record = _completed(small, self.source, {"source": self.text_source})
            record.made |= {"command": manner().typed}
            if self.options["evaluate"] and self.held_out is not None:
                self._begin("evaluating", f"evaluating on {len(self.held_out)} windows ...")
                with torch.no_grad():
                    record.evaluation = asdict(compare(dense, small, self.held_out))
                models = {"dense": lambda: dense, "pruned": lambda: small}
                record.evaluation |= described(self.evaluated_on, self.held_out)
                record.evaluation |= written(models, self.tokenizer, self.held_out)
            _write(small, self.tokenizer, record, output.made, self.out)
            output.publish(self.options["overwrite"])
        show(record_data(record) | {"out": self.out}, _table(record))
        self._tell_and_send()

    def _read_recipe(self) -> Any:
        recipe = as_smaller_recipe(self.options["method"])
        if self.options["density"] == AUTO:
            raise OptionError(
                f"--sparsity {AUTO} cuts one stream of weights at several densities, and "
                f"{self.options['method']} makes models smaller; say how much, such as --sparsity "
                "0.2"
            )
        for name, default in _OTHERS.items():
            if self.options[name] != default:
                raise OptionError(
                    f"{self.options['method']} removes whole parts, and has no use for --{name}; "
                    "leave it away"
                )
        assert recipe is not None
        recipe = recipe.with_density(self.options["density"])
        recipe.target  # noqa: B018 - raises now if nothing says how much to keep
        return recipe

    def _curve_densities(self) -> list[float]:
        return []


def shrink_folder(
    source: Path,
    out: Path,
    recipe: SmallerRecipe,
    windows: torch.Tensor,
    calibration: dict[str, Any],
) -> PruneRecord:
    """Make a folder's model smaller, into a new folder.

    Parameters
    ----------
    source, out : Path
        A folder of a transformers model, and the one to write.
    recipe : SmallerRecipe
        With a density.
    windows : Tensor of int64, shape (windows, length)
        Token ids to calibrate on.
    calibration : dict
        What they are, for the record.

    Raises
    ------
    ThresherError
        If the model cannot be read, made smaller or written; `out` is then not there.
    """
    with writing(out, "prune") as output:
        output.check_free()
        output.restart()
        dense = load_model(source).to(device_named("auto"))
        check_savable(dense)
        small = prune(dense, recipe, windows)
        record = _completed(small, source, calibration)
        _write(small, load_tokenizer(source), record, output.made, out)
        output.publish()
    return record


def _completed(small: nn.Module, source: Path, calibration: dict[str, Any]) -> PruneRecord:
    """Return a smaller model's record, with what the folder alone knows."""
    record: PruneRecord = remembered(small)
    record.model, record.peak_bytes = str(source), peak_memory()
    record.calibration |= calibration
    return record


def _write(small: Any, tokenizer: Any, record: PruneRecord, folder: Path, out: Path) -> None:
    """Write what is to become the folder `out`."""
    small.save_pretrained(folder)
    sizes = [weight_sizes(each)["sparse_bytes"] for each in (Path(record.model), folder)]
    record.evaluation |= dict(zip(("dense_bytes", "sparse_bytes"), sizes, strict=True))
    tokenizer.save_pretrained(folder)
    write_text(folder / RECORD_FILE, record.to_json())
    write_pages(record, folder, out)


def _table(record: PruneRecord) -> Table:
    """Return what was removed, and what that cost."""
    table = Table(title=escape(f"{record.model}, {record.method}"))
    table.add_column("removed")
    table.add_column("value", overflow="fold")
    for name, text in structure_rows(record).items():
        table.add_row(escape(name), escape(text))
    for name, value in record.evaluation.items():
        if isinstance(value, float):
            table.add_row(name.replace("_", " "), number(value))
    return table
