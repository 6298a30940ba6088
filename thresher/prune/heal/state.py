"""How far a healing run has come, so that it can be stopped at any moment and gone on with."""

from __future__ import annotations

__all__ = ["HealState"]

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ...core.files import write_text
from ...core.records import restored_from
from ...run.files.tensors import TensorFile
from ...run.files.writer import save_tensors

_FILE = "healing.json"


@dataclass
class HealState:
    """All that is needed to go on but the model, the text and the teacher's answers.

    Progress is `seconds` over the budget: seconds of healing in this and earlier processes, up to
    when the state was saved. Whoever goes on begins with step number `step` of the phase that
    `probes` and `begun` tell, so that none is repeated or left out; what was done after the last
    save is done again, and its time is not counted twice. Windows are drawn by step number and
    seed, and nothing else is random, so that there is no generator to keep.

    Parameters
    ----------
    fingerprint : str
        Identifies the run's models, text, options and versions.
    seconds : float
        Of healing so far; loading is not counted.
    step : int
        Steps of the current phase that are done.
    step_seconds, check_seconds : float
        What the last step and the first evaluation took.
    before, best : float or None
        Loss on held-out windows at the start, and the least so far.
    best_step : int
        After how many steps of training that was.
    probes : list of dict of str to float
        Learning rates that were tried: ``rate``, ``loss``, ``steps``.
    begun : float or None
        Seconds at which the training proper began, None before.
    rate : float
        Its learning rate.
    next_check : float
        Seconds at which it is evaluated next.
    checks : list of dict of str to float
        Evaluations: ``seconds``, ``step``, ``loss``.
    file : str
        Of weights and moments, in the same folder; empty while they are those of the start.
    """

    fingerprint: str = ""
    seconds: float = 0.0
    step: int = 0
    step_seconds: float = 0.0
    check_seconds: float = 0.0
    before: float | None = None
    best: float | None = None
    best_step: int = 0
    probes: list[dict[str, float]] = field(default_factory=list)
    begun: float | None = None
    rate: float = 0.0
    next_check: float = 0.0
    checks: list[dict[str, float]] = field(default_factory=list)
    file: str = ""

    @property
    def lowest(self) -> float:
        """The least loss so far, infinite before the first evaluation."""
        return math.inf if self.best is None else self.best

    def save(self, folder: Path, tensors: dict[str, torch.Tensor] | None = None) -> None:
        """Write the state, and weights and moments where they have changed, whole or not at all.

        Parameters
        ----------
        folder : Path
            The run's own.
        tensors : dict of str to Tensor, optional
            By default those that were saved before stay.
        """
        before = self.file
        if tensors is not None:
            self.file = f"healing-{self.step:08d}.safetensors"
            save_tensors(tensors, folder / self.file)
        write_text(folder / _FILE, json.dumps(dataclasses.asdict(self)))
        # Only now does nothing refer to them.
        if before and before != self.file:
            (folder / before).unlink(missing_ok=True)

    def tensors(self, folder: Path) -> dict[str, torch.Tensor]:
        """Return the weights and moments that were saved, none while they are the start's."""
        if not self.file:
            return {}
        file = TensorFile(folder / self.file)
        return {name: file.read(name) for name in file.names}

    @classmethod
    def load(cls, folder: Path) -> HealState | None:
        """Return the state in a run's folder, None if there is none.

        Raises
        ------
        CheckpointError
            If the file was damaged, or written by another version.
        """
        if not (folder / _FILE).is_file():
            return None
        remedy = f"delete {str(folder)!r} to start anew"
        return restored_from(folder / _FILE, cls, "the state of a run", remedy)
