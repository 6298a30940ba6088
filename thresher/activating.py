"""What ``thresher activate`` does, on folders and terminals."""

from __future__ import annotations

__all__ = ["ActivateJob"]

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .activate.folder import activate_folder
from .activate.memory import as_activation_recipe
from .activate.record import ActivationRecord
from .core.dtypes import dtype_named
from .core.output import writing
from .core.progress import progress_bar
from .core.terminal import show
from .parts.activations.attached import counting
from .report.activations import activation_kinds, activation_outcome, activation_summary
from .run.evaluate import compare
from .run.files.activations import copy_model, write_activations
from .workflow import PruneJob, is_causal_language_model, tell


class ActivateJob(PruneJob):
    """``thresher activate``: calibrate a folder, evaluate it, and write it with its thresholds.

    Parameters
    ----------
    model : str
        Folder or hub name.
    **options : Any
        The command's options, see ``thresher activate --help``.
    """

    def run(self) -> None:
        """Calibrate, evaluate, write the folder and print the tables.

        A run that was stopped has written nothing, and begins anew.
        """
        with writing(self.out, "activate") as output:
            output.check_free(self.options["overwrite"])
            output.restart()
            tell(f"calibrating {self.source} ...")
            model, record = activate_folder(
                self.source,
                self.recipe,
                self.calibration,
                include=self.options["include"],
                exclude=self.options["exclude"],
                precision=dtype_named(self.options["precision"]),
                device=self.options["device"],
            )
            described = {"windows": len(self.calibration), "length": self.length}
            record.calibration = {"source": self.text_source, **described}
            copy_model(self.source, output.made)
            write_activations(model, output.made, record.to_json())
            if self._can_be_evaluated():
                self._measure_against_dense(record, output.made)
                write_activations(model, output.made, record.to_json())
            output.publish(self.options["overwrite"])
        told = activation_outcome(record, str(self.out))
        data = asdict(record) | {"out": self.out, "outcome": told.plain}
        show(data, activation_summary(record), activation_kinds(record), told)
        tell(f"wrote {self.out}")

    def _read_recipe(self) -> Any:
        given = {name: self.options[name] for name in ("sparsity", "levels", "rule")}
        recipe = as_activation_recipe(self.options["method"]).with_options(**given)
        recipe.target  # noqa: B018 - raises now if nothing says how much to drop
        return recipe

    def _curve_densities(self) -> list[float]:
        return []

    def _can_be_evaluated(self) -> bool:
        if not self.options["evaluate"]:
            return False
        if self.held_out is None:
            tell("not evaluated: the calibration text has no window to spare; pass --text FILE")
            return False
        if not is_causal_language_model(self.source):
            tell("not evaluated: no causal language model, which perplexity is of")
            return False
        return True

    def _measure_against_dense(self, record: ActivationRecord, made: Path) -> None:
        assert self.held_out is not None
        tell(f"evaluating on {len(self.held_out)} windows ...")
        blocks = len({site.block for site in record.sites})
        with progress_bar(2 * blocks, lines=True) as advance, counting() as tallies:
            dense, sparse = (self._logits(each, advance) for each in (self.source, made))
            record.evaluation = asdict(compare(dense, sparse, self.held_out))
        record.evaluated_on(tallies)
        record.evaluation |= {
            "text": str(self.options["text"] or f"{self.text_source}, held out"),
            "windows": len(self.held_out),
            "length": self.length,
            "digest": hashlib.sha256(self.held_out.numpy().tobytes()).hexdigest(),
        }
