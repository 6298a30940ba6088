"""What lies beside a pruned model for people: its report and the card of its page on the hub."""

from __future__ import annotations

__all__ = ["write_pages"]

from pathlib import Path
from typing import TYPE_CHECKING

from .html import write_report
from .model_card import write_card

if TYPE_CHECKING:
    from ..prune.record import PruneRecord


def write_pages(record: PruneRecord, folder: Path, place: Path | None = None) -> None:
    """Write ``report.html`` and ``README.md`` into a model's folder, or write them again.

    Parameters
    ----------
    record : PruneRecord
        How the model was made.
    folder : Path
        To write to.
    place : Path, optional
        Where the folder is about to be moved, for commands that the report names.
    """
    write_report(record, folder / "report.html", place or folder)
    write_card(record, folder)
