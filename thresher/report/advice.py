"""What to type next, for the terminal and the report."""

from __future__ import annotations

__all__ = ["Step", "again", "next_steps"]

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.numbers import percent
from .answers import is_costly
from .verdict import HIGH_COST, smaller_cuts

if TYPE_CHECKING:
    from ..prune.record import PruneRecord

#: Options that say how much to keep: only one of them may be given.
_AMOUNTS = ("--density", "--sparsity")


@dataclass(frozen=True)
class Step:
    """A command, and what it is for.

    Parameters
    ----------
    command : str
        As it is typed.
    purpose : str
        In a few words.
    """

    command: str
    purpose: str


def next_steps(record: PruneRecord, folder: str | Path) -> list[Step]:
    """Return the commands that go on from a pruned model, the most useful one first.

    Parameters
    ----------
    record : PruneRecord
        How it was made and what it cost.
    folder : str or Path
        Where it lies.
    """
    program, out, dense = _program(), shlex.quote(str(folder)), shlex.quote(record.model)
    exported = shlex.quote(f"{folder}-dense")
    export = Step(f"{program} export {out} {exported}", "for tools that know no zeros")
    if record.evaluation.get("no_text"):
        loading = f"AutoModel.from_pretrained({str(folder)!r})"
        return [Step(loading, "in Python, after import thresher: measure what it cost"), export]
    costly = is_costly(record)
    steps = []
    if costly is None:
        evaluate = f"{program} eval {out} --text FILE --dense {dense} --save"
        steps.append(Step(evaluate, "what it cost"))
    if costly:
        heal = f"{program} heal {out} --minutes 30"
        steps.append(Step(heal, "recovers part of it; zeros stay"))
        steps += _smaller(record, folder)
    if not record.speed:
        timing = f"{program} bench {out} --dense {dense} --save"
        steps.append(Step(timing, "is it faster here?"))
    if not record.tasks:
        tasks = f"{program} eval {out} --tasks arc_easy --dense {dense} --save"
        steps.append(Step(tasks, "accuracy on a task; needs thresher[tasks]"))
    steps.append(Step(f'{program} generate {out} "Once upon a time"', "writes text with it"))
    steps.append(export)
    return steps


def again(
    record: PruneRecord, out: str | Path, options: Sequence[str], amount: bool = False
) -> str | None:
    """Return the command that pruned a model, with other options and into another folder.

    None where no command did.

    Parameters
    ----------
    record : PruneRecord
        Its own command is taken where it was kept.
    out : str or Path
        The other folder.
    options : sequence of str
        To add.
    amount : bool, default False
        Whether they say how much to keep, in place of what said so before.
    """
    words = shlex.split(record.made.get("command", "")) or _reconstructed(record)
    if not words:
        return None
    kept = _without(words, ("--out", *_AMOUNTS) if amount else ("--out",))
    named = [_program(), *map(shlex.quote, kept[1:])]
    return " ".join([*named, *map(shlex.quote, options), "--out", shlex.quote(str(out))])


def _smaller(record: PruneRecord, folder: str | Path) -> list[Step]:
    """Return how to make the largest cut that was measured to be cheap, if there is one."""
    dense = record.evaluation["dense_perplexity"]
    cheap = [cut for cut in smaller_cuts(record) if cut["perplexity"] <= HIGH_COST * dense]
    if not cheap:
        return []
    density = cheap[-1]["density"]
    share = f"{round(1 - density, 6):g}"
    command = again(record, f"{folder}-{share}", ["--sparsity", share], amount=True)
    purpose = f"removes {percent(float(share))}, which stays within {HIGH_COST}x"
    return [] if command is None else [Step(command, purpose)]


def _reconstructed(record: PruneRecord) -> list[str]:
    """Return what a record of an earlier version says; a composed recipe has no command."""
    if record.method == "recipe":
        return []
    return [
        *("thresher", "prune", record.model, "--method", record.method),
        *("--sparsity", f"{round(1 - record.density_asked, 6):g}"),
    ]


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return a command without some of its options, whose values may be words of their own."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = True
        elif not word.startswith(tuple(f"{option}=" for option in options)):
            kept.append(word)
    return kept


def _program() -> str:
    """Return how this command is called: it need not be on the path, as in `make demo`."""
    if shutil.which("thresher"):
        return "thresher"
    called = Path(sys.argv[0])
    return str(called) if called.name == "thresher" else "python -m thresher"
