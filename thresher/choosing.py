"""``thresher prune --sparsity auto``: the largest cut that costs little, found by measuring."""

from __future__ import annotations

__all__ = ["ChoosingJob"]

import copy
import json
import os
from typing import Any

from .cli_options import AUTO
from .core.errors import CheckpointError, DataError, OptionError
from .core.files import read_json, write_text
from .core.numbers import removed, times
from .core.output import Output, writing
from .parts.patterns import Pattern
from .prune.disk import of_another_run
from .prune.memory import as_recipe
from .prune.record import PruneRecord
from .report.verdict import HIGH_COST
from .stream.ranks import joined, ranks
from .stream.state import RunState
from .workflow import PruneJob, is_causal_language_model, read_record, tell

#: The density whose weights the samples see while the cuts are measured. Where it turns out to be
#: the one to choose, as for SmolLM2, nothing is pruned again.
_FIRST = 0.6
_CHOICE = "choice.json"


class ChoosingJob(PruneJob):
    """Prune to the largest cut that leaves perplexity low; see :class:`~.workflow.PruneJob`.

    The model is cut to several densities from the same moments, and each is evaluated. That which
    is chosen is pruned again unless it is the one whose weights the samples saw. A command that was
    stopped goes on, also with the choice that it had made.
    """

    def __init__(self, model: str, **options: Any) -> None:
        super().__init__(model, **options | {"density": _FIRST, "curve": True})

    def run(self) -> None:
        """Choose, prune, evaluate, write the report and print the table."""
        with joined():
            if ranks() > 1:
                raise OptionError(
                    f"--sparsity {AUTO} measures in one process; start the command without torchrun"
                )
        self._announce()
        with writing(self.out, "prune", keep=True) as output:
            choice = self._known(output) or self._measured(output)
            self.recipe = self.recipe.with_options(density=choice["density"])
            self.densities = []
            if choice["density"] != _FIRST:
                self._begin("pruning", f"removing {removed(choice['density'])} ...")
            run = self._disk_run()
            if not RunState.is_in(output.work):
                # What is begun already is not begun by deleting all that is there, the choice too.
                RunState(run.fingerprint).save(output.work)
            record = run.execute(output)
            self._keep_what_is_of_this_text(record)
            if "seconds" in choice:
                record.timings.setdefault("measuring", choice["seconds"])
            others = [p for p in choice["curve"] if p["density"] != choice["density"]]
            if record.evaluation.get("curve") != others:
                self._note(record, {"curve": others})
            self._finish(record, output)

    def _read_recipe(self) -> Any:
        given = self.options["pattern"]
        pattern = Pattern.parse(given) if given else as_recipe(self.options["method"]).pattern
        if pattern.density is not None:
            raise OptionError(
                f"pattern {pattern.spec} keeps {pattern.density:g} of the weights, and leaves "
                f"--sparsity {AUTO} nothing to choose; drop one of the two"
            )
        return super()._read_recipe()

    def _curve_densities(self) -> list[float]:
        if not self.options["evaluate"]:
            raise OptionError(f"--sparsity {AUTO} evaluates; leave --no-evaluate away")
        if not is_causal_language_model(self.source):
            raise DataError(
                f"--sparsity {AUTO} goes by perplexity, which {str(self.source)!r} has none of: it "
                "is no causal language model; say how much, such as --sparsity 0.5"
            )
        if self.held_out is None:
            raise DataError(
                f"--sparsity {AUTO} needs text to evaluate on, and the calibration text has no "
                "window to spare; pass --text FILE"
            )
        return super()._curve_densities()

    def _known(self, output: Output) -> dict[str, Any] | None:
        """Return what an earlier process chose."""
        file = output.work / _CHOICE
        if file.is_file():
            found: dict[str, Any] = read_json(file, f"delete {str(output.work)!r} to start anew")
            if found["fingerprint"] == self._disk_run().fingerprint:
                return found
            if not self.options["overwrite"]:
                raise of_another_run(output)
            output.restart()
        if not os.path.lexists(self.out) or self.options["overwrite"]:
            return None
        # Whether it is this run that has ended, its fingerprint says.
        try:
            record = read_record(self.out)
        except CheckpointError:
            return {"density": _FIRST, "curve": []}
        return {
            "density": record.density_asked,
            "curve": record.evaluation.get("curve", []),
        }

    def _measured(self, output: Output) -> dict[str, Any]:
        """Cut the model to several densities, evaluate each, and choose."""
        job = copy.copy(self)
        job.out = output.work / "survey"
        with writing(job.out, "prune", keep=True) as survey:
            record = job._disk_run().execute(survey)
            job._keep_what_is_of_this_text(record)
            job._evaluate_all(record, survey)
            choice = _choice(record)
            write_text(output.work / _CHOICE, json.dumps(choice))
            if choice["density"] == _FIRST:
                # It is what was to be made: published as if pruned there.
                os.replace(survey.out, output.made)
                RunState.load(survey.work).save(output.work)
        return choice


def _choice(record: PruneRecord) -> dict[str, Any]:
    """Return the smallest density whose perplexity is low, and all points that were measured."""
    held = record.evaluation
    own = {"density": record.density_asked, "perplexity": held["pruned_perplexity"]}
    own |= {"method": record.method, "bytes": held["sparse_bytes"]}
    points = sorted([own, *held["curve"]], key=lambda point: point["density"])
    dense = held["dense_perplexity"]
    low = [point for point in points if point["perplexity"] <= HIGH_COST * dense]
    chosen = low[0] if low else points[-1]
    words = "the largest cut measured" if low else "the smallest cut, as none stays"
    tell(
        f"chosen: {removed(chosen['density'])}, {words} within {HIGH_COST} times the dense "
        f"perplexity ({times(chosen['perplexity'], dense)})"
    )
    return {
        "density": chosen["density"],
        "curve": points,
        "fingerprint": record.fingerprint,
        "seconds": record.seconds + record.timings.get("measuring", 0.0),
    }
