"""The last words of a pruning command: what was gained and lost, and what to type next."""

from __future__ import annotations

__all__ = ["outcome"]

from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal as bytes_text
from rich.text import Text

from ..core.numbers import number, percent, removed, times
from .advice import next_steps
from .answers import is_costly
from .verdict import HIGH_COST, smaller_cuts

if TYPE_CHECKING:
    from ..prune.record import PruneRecord


def outcome(record: PruneRecord, folder: Path) -> Text:
    """Return a sentence on what a run came to, and a command that goes on from there.

    Parameters
    ----------
    record : PruneRecord
        Any of its evaluation may be missing.
    folder : Path
        Where the pruned model lies.

    Returns
    -------
    rich.text.Text
        Two lines, yellow where the perplexity rose to more than
        :data:`~thresher.report.verdict.HIGH_COST` times the dense one, or is not finite.
    """
    costly = is_costly(record)
    sentence = f"Gained: {_gained(record)}. Lost: {_lost(record)}."
    style = "yellow" if costly else "green" if costly is False else ""
    return Text.assemble((sentence, style), "\n", f"Next: {_next(record, folder)}")


def _gained(record: PruneRecord) -> str:
    held = record.evaluation
    dense, sparse = held.get("dense_bytes"), held.get("sparse_bytes")
    text = f"{removed(record.density)} of the pruned layers' weights are gone"
    if dense and sparse:
        text += (
            f", {bytes_text(dense)} became {bytes_text(sparse)} on disk ({times(sparse, dense)})"
        )
    return text


def _lost(record: PruneRecord) -> str:
    dense = record.evaluation.get("dense_perplexity")
    pruned = record.evaluation.get("pruned_perplexity")
    if dense is None or pruned is None:
        return "not measured"
    text = f"perplexity went from {number(dense)} to {number(pruned)} ({times(pruned, dense)})"
    cheap = [cut for cut in smaller_cuts(record) if cut["perplexity"] <= HIGH_COST * dense]
    if is_costly(record) and cheap:
        text += f"; {percent(1 - cheap[-1]['density'])} removed stays within {HIGH_COST}x"
    return text


def _next(record: PruneRecord, folder: Path) -> str:
    step = next_steps(record, folder)[0]
    return f"{step.command}   ({step.purpose})"
