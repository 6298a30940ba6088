"""What the processes of a comparison know of each other: files in the work folder."""

from __future__ import annotations

__all__ = ["Plan", "absolute_tasks", "drop_row", "fingerprint_of", "load_rows", "save_row"]

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .core.files import replace, write_text
from .core.machine import versions
from .core.records import restored_from
from .prune.comparison import Cell, ComparedModel
from .run.files.digests import folder_digest
from .run.tasks import listed_tasks

_PLAN, _WINDOWS = "plan.json", "windows.safetensors"


@dataclass
class Plan:
    """What every process of a comparison has to know; it lies in the work folder.

    Parameters
    ----------
    source : str
        The dense model's folder.
    fingerprint : str
        Of the model, the text, the options and the versions.
    text : dict
        See :class:`~thresher.prune.comparison.Comparison`.
    heal : float, optional
        Minutes to heal every pruned model for.
    tasks : list of str, optional
        See :func:`~thresher.run.tasks.evaluate_tasks`.
    cells : list of Cell
        What to prune.
    """

    source: str
    fingerprint: str
    text: dict[str, Any]
    heal: float | None = None
    tasks: list[str] | None = None
    cells: list[Cell] = field(default_factory=list)

    def save(self, work: Path) -> None:
        """Write the plan into the work folder."""
        write_text(work / _PLAN, json.dumps(asdict(self)))

    @classmethod
    def load(cls, work: Path) -> Plan:
        """Read the plan from the work folder."""
        remedy = f"delete {str(work)!r} to start anew"
        return restored_from(work / _PLAN, cls, "the plan of a comparison", remedy)

    @staticmethod
    def is_in(work: Path) -> bool:
        """Return whether a work folder holds a plan."""
        return (work / _PLAN).is_file()

    @staticmethod
    def save_windows(work: Path, windows: dict[str, torch.Tensor]) -> None:
        """Write the token windows: all processes read the same, whatever becomes of the text."""
        temporary = work / f"{_WINDOWS}.tmp"
        save_file({name: found.clone() for name, found in windows.items()}, temporary)
        replace(temporary, work / _WINDOWS)

    @staticmethod
    def windows(work: Path) -> dict[str, torch.Tensor]:
        """Return the token windows by name: ``calibration``, ``held_out``, ``other``, ``heal``."""
        found: dict[str, torch.Tensor] = load_file(work / _WINDOWS)
        return found


def save_row(work: Path, row: ComparedModel) -> None:
    """Note what is known of a model."""
    folder = work / "rows"
    folder.mkdir(exist_ok=True)
    write_text(folder / f"{row.name}.json", json.dumps(asdict(row)))


def drop_row(work: Path, name: str) -> None:
    """Forget what was noted of a model."""
    (work / "rows" / f"{name}.json").unlink()


def load_rows(work: Path) -> dict[str, ComparedModel]:
    """Return what has been noted, by the models' names."""
    remedy = f"delete {str(work)!r} to start anew"
    files = sorted((work / "rows").glob("*.json"))
    rows = (restored_from(file, ComparedModel, "a row of a comparison", remedy) for file in files)
    return {row.name: row for row in rows}


def fingerprint_of(
    source: Path,
    windows: Mapping[str, torch.Tensor],
    heal: float | None,
    tasks: Sequence[str] | None,
) -> str:
    """Identify what the rows of a table have in common, so that no other's are among them.

    Parameters
    ----------
    source : Path
        The dense model's folder.
    windows : mapping of str to Tensor
        What is read.
    heal : float or None
        Minutes.
    tasks : sequence of str or None
        As :func:`absolute_tasks` returns them; files are identified by what they hold.
    """
    digest = hashlib.sha256(folder_digest(source).encode())
    for name, found in windows.items():
        digest.update(f"{name} {tuple(found.shape)}".encode() + found.numpy().tobytes())
    digest.update(repr([heal, tasks, versions()]).encode())
    for file in map(Path, tasks or ()):
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def absolute_tasks(tasks: str | Path | Sequence[str | Path]) -> list[str]:
    """Return tasks one by one, with files among them as other working folders know them."""
    files = ((name, Path(name)) for name in listed_tasks(tasks))
    return [str(file.absolute()) if file.is_file() else name for name, file in files]
