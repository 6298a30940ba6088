"""``thresher prune`` with methods that make a model smaller: in memory, and into a plain folder."""

from __future__ import annotations

__all__ = ["job_for"]

from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

from .core.device import device_named
from .core.errors import OptionError
from .core.files import write_text
from .core.output import writing
from .core.remembered import remembered
from .core.terminal import show
from .prune.memory import as_unit_recipe
from .prune.record import PruneRecord
from .prune.units import prune_units
from .report.tables import record_data
from .run.evaluate import compare
from .run.files.companions import RECORD_FILE
from .run.files.export import check_savable
from .workflow import PruneJob, load_model, tell

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
    kind = PruneJob if as_unit_recipe(options["method"]) is None else ShrinkJob
    return kind(model, **options)


class ShrinkJob(PruneJob):
    """``thresher prune`` with a method that removes units; see :class:`PruneJob`."""

    def run(self) -> None:
        """Prune, write the folder, evaluate, and print what was removed."""
        with ExitStack() as stack:
            output = stack.enter_context(writing(self.out, "prune"))
            output.check_free(self.options["overwrite"])
            output.restart()
            place = device_named(self.options["device"])
            dense = load_model(self.source, self.dtype).to(place)
            check_savable(dense)
            tell(f"pruning {self.source} ...")
            small: Any = prune_units(
                dense,
                self.recipe,
                self.calibration,
                include=self.options["include"],
                exclude=self.options["exclude"],
            )
            record: PruneRecord = remembered(small)
            record.model = str(self.source)
            record.calibration |= {"source": self.text_source}
            if self.options["evaluate"] and self.held_out is not None:
                tell(f"evaluating on {len(self.held_out)} windows ...")
                with torch.no_grad():
                    record.evaluation = asdict(compare(dense, small, self.held_out))
            small.save_pretrained(output.made)
            self.tokenizer.save_pretrained(output.made)
            write_text(output.made / RECORD_FILE, record.to_json())
            output.publish(self.options["overwrite"])
        show(record_data(record) | {"out": self.out}, _table(record))
        tell(f"wrote {self.out}")

    def _read_recipe(self) -> Any:
        recipe = as_unit_recipe(self.options["method"])
        for name, default in _OTHERS.items():
            if self.options[name] != default:
                raise OptionError(
                    f"{self.options['method']} removes whole units, and has no use for --{name}; "
                    "leave it away"
                )
        assert recipe is not None
        recipe = recipe.with_density(self.options["density"])
        recipe.target  # noqa: B018 - raises now if nothing says how much to keep
        return recipe

    def _curve_densities(self) -> list[float]:
        return []


def _table(record: PruneRecord) -> Table:
    """Return what was removed, and what that cost."""
    weights = record.structure["weights"]
    table = Table(title=escape(f"{record.model}, {record.method}"))
    table.add_column("removed")
    table.add_column("value", justify="right")
    share = weights["after"] / weights["before"]
    table.add_row("weights of layers that stay", f"{weights['after']:,} ({share:.1%})")
    counts: dict[tuple[str, int], int] = {}
    for name, units in record.structure["removed"].items():
        kind = name.rpartition(".weight")[0].rpartition(".")[2] or name
        counts[kind, len(units)] = counts.get((kind, len(units)), 0) + 1
    for (kind, units), groups in counts.items():
        table.add_row(escape(f"{kind} and what goes with it"), f"{units} units in {groups} places")
    for name, value in record.evaluation.items():
        if isinstance(value, float):
            table.add_row(name.replace("_", " "), f"{value:.4g}")
    return table
