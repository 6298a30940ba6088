"""The state of a run that can be stopped at any moment and gone on with."""

from __future__ import annotations

__all__ = ["RunState"]

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.files import write_text
from ..core.records import restored_from
from .proof import Order

_FILE = "progress.json"


@dataclass
class RunState:
    """All that is needed to go on, but the weights that were written.

    Parameters
    ----------
    fingerprint : str
        Identifies the run's model, data, options and versions.
    next : int
        Units that are finished.
    counts : list of dict of str to int
        Weights to keep by layer, for the model itself and for every other cut.
    curve : list of float
        The densities of the other cuts.
    layers : list of dict
        Records of the layers that are finished.
    unseen : list of str
        Those of them that no data reached.
    units : list of str
        In the order in which they run; empty before that is known.
    whole : list of str
        See :class:`~thresher.stream.proof.Order`.
    digests : list of str
        Of the files that hold the finished units, in their order.
    published : bool
        Whether the model is whole, and stands in its place or is about to.
    timings : dict of str to float
        Seconds that the finished units took, by phase and in ``total``, over all processes.
    peak_bytes : int
        Highest peak memory of those processes.
    """

    fingerprint: str
    next: int = 0
    counts: list[dict[str, int]] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    published: bool = False
    timings: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0

    @property
    def order(self) -> Order | None:
        """The order of the units, once it is known."""
        return Order(self.units, frozenset(self.whole)) if self.units else None

    def save(self, folder: Path) -> None:
        """Write the state into a run's folder, whole or not at all."""
        # Not asdict, which would copy the records of all layers after every unit.
        write_text(folder / _FILE, json.dumps(vars(self)))

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Return whether a folder holds a state."""
        return (folder / _FILE).is_file()

    @classmethod
    def load(cls, folder: Path) -> RunState:
        """Read the state from a run's folder.

        Raises
        ------
        CheckpointError
            If the file was damaged, or written by another version.
        """
        remedy = f"delete {str(folder)!r} to start anew"
        return restored_from(folder / _FILE, cls, "the state of a run", remedy)
