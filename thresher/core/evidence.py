"""Evidence: small experiments that rerun a paper's claim, with a verdict computed by the code."""

from __future__ import annotations

__all__ = ["Earlier", "Experiment", "Outcome", "available", "execute", "load"]

import importlib
import importlib.util
import json
import math
import os
import pkgutil
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from .card import area_of, find
from .drawing import page_with
from .errors import OptionError
from .files import write_text
from .machine import commit_of, processor
from .machine import load as load_of_machine

if TYPE_CHECKING:
    from .figure import Figure

_ROOT = "thresher.evidence"
_VERSIONED = ("thresher", "torch", "transformers", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Outcome:
    """What an experiment found.

    A rule of several parts is judged by :meth:`judged`, from the slack of each part. The
    verdict is never a separate opinion: it is the sign of the margin.

    Parameters
    ----------
    reproduced : bool
        Whether the claim held, by a rule that the experiment fixed beforehand.
    margin : float
        By how much, in the unit that `summary` names: positive when the claim held and
        negative by what it missed; the least slack of the rule's parts.
    summary : str
        The finding in a sentence or two, with its figures; for a claim that did not hold,
        the reason known or suspected.
    table : list of dict
        Rows of one table, all with the same keys.
    figure : Figure
        The finding as a picture.
    slacks : dict of str to float, optional
        What each part of the rule asks, in a few words, and by how much it held: positive
        when it held.
    noise : float, optional
        Of timings: how far apart two measurements of the same function lay at worst, as a
        fraction. None when nothing was timed.

    Raises
    ------
    ValueError
        If the verdict is not the sign of the margin: the experiment is wrong.
    """

    reproduced: bool
    margin: float
    summary: str
    table: list[dict[str, Any]]
    figure: Figure
    slacks: Mapping[str, float] = field(default_factory=dict)
    noise: float | None = None

    def __post_init__(self) -> None:
        if bool(self.reproduced) != bool(self.margin > 0):
            raise ValueError(
                f"verdict {self.reproduced} with margin {self.margin}: the margin must be the "
                "least slack of the rule's parts; use Outcome.judged"
            )

    @classmethod
    def judged(
        cls,
        slacks: Mapping[str, float],
        summary: str,
        table: list[dict[str, Any]],
        figure: Figure,
        noise: float | None = None,
    ) -> Outcome:
        """Return the outcome of a rule whose every part must hold.

        Parameters
        ----------
        slacks : dict of str to float
            Parts of the rule; see the class. A NaN is a part that did not hold.
        summary, table, figure, noise
            See the class.

        Returns
        -------
        Outcome
            Its margin is the least slack, and the claim is reproduced if that is positive.
        """
        plain = {part: float(slack) for part, slack in slacks.items()}
        # Unlike min(), lets a NaN through wherever it stands.
        margin = float(np.min(list(plain.values())))
        return cls(margin > 0, margin, summary, table, figure, plain, noise)


@dataclass(frozen=True)
class Earlier:
    """A rule that was replaced after it had been run.

    Parameters
    ----------
    rule : str
        What it asked.
    reproduced : bool
        Its recorded verdict.
    margin : float or None
        Its recorded margin; None if none was recorded.
    why : str
        Why it was replaced.
    """

    rule: str
    reproduced: bool
    margin: float | None
    why: str


@dataclass(frozen=True)
class Experiment:
    """A paper's claim and how to rerun it.

    Parameters
    ----------
    method : str
        Card name of the method.
    claim : str
        The paper's claim in a line.
    baseline : str
        What the claim is against.
    run : callable
        ``run(scale, seeds)`` returns an :class:`Outcome`. At scale 1 it takes at most three
        minutes on two cores; smaller and larger scales train and measure less and more.
    seeds : tuple of int, default (0, 1, 2)
        Seeds used unless others are asked for.
    threads : int, default 1
        Threads of every pool. Always this many, because sums differ with their number and a
        verdict must not; small models gain nothing from a second one.
    earlier : tuple of Earlier
        Rules that this one replaced after they had been run, oldest first.
    """

    method: str
    claim: str
    baseline: str
    run: Callable[[float, Sequence[int]], Outcome]
    seeds: tuple[int, ...] = (0, 1, 2)
    threads: int = 1
    earlier: tuple[Earlier, ...] = ()


def load(name: str) -> Experiment:
    """Return the experiment on the method called `name`.

    Parameters
    ----------
    name : str
        A card name.

    Returns
    -------
    Experiment
        The ``experiment`` of the module ``thresher.evidence.<area>.<name>``, hyphens written
        as underscores.

    Raises
    ------
    OptionError
        If there is no such method, or no evidence on it yet.
    """
    method = find(name)
    module = f"{_ROOT}.{area_of(method)}.{method.card.name.replace('-', '_')}"
    if not _exists(module):
        raise OptionError(
            f"there is no evidence on method {method.card.name!r} yet; "
            f"there is on: {', '.join(available())}"
        )
    experiment = importlib.import_module(module).experiment
    assert isinstance(experiment, Experiment)
    return experiment


def available() -> list[str]:
    """Return the card names that have evidence, sorted."""
    package = importlib.import_module(_ROOT)
    modules = pkgutil.walk_packages(package.__path__, f"{_ROOT}.")
    # Modules beside the areas are what experiments share.
    areas = [m.name for m in modules if m.name.count(".") > 2]
    leaves = (name.rpartition(".")[2] for name in areas)
    return sorted(leaf.replace("_", "-") for leaf in leaves if not leaf.startswith("_"))


def execute(
    name: str,
    scale: float = 1.0,
    seeds: Sequence[int] | None = None,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """Run an experiment and record what it found.

    Parameters
    ----------
    name : str
        A card name.
    scale : float, default 1.0
        Size of the experiment relative to its default.
    seeds : sequence of int, optional
        Default: the experiment's own.
    folder : str or Path, optional
        Where to write ``NAME.json``, ``NAME.figure.json`` (as plotly writes figures) and
        ``NAME.html`` (works offline; where matplotlib is installed), each whole or not at all.
        Default: nothing is written.

    Returns
    -------
    dict
        Ready for JSON, with the keys ``method``, ``claim``, ``baseline``, ``reproduced``,
        ``margin``, ``slacks`` (of a rule judged by parts: each part and by how much it held;
        the margin is the least), ``earlier`` (see :class:`Earlier`), ``summary``, ``table``,
        ``seeds``, ``scale``, ``seconds``, ``noise`` (see :class:`Outcome`), ``date`` (UTC),
        ``commit`` (None outside a checkout), ``machine`` and ``versions``. Numbers have six
        digits; NaN and infinities are None.

    Raises
    ------
    OptionError
        If the method or its evidence does not exist, `scale` is not positive, or there is
        no seed.
    """
    if not scale > 0:
        raise OptionError(f"scale {scale} is out of range; it must be above 0, 1 is the default")
    experiment = load(name)
    chosen = list(experiment.seeds if seeds is None else seeds)
    if not chosen:
        raise OptionError("an experiment needs at least one seed")
    start = time.perf_counter()
    commit, before = commit_of(importlib.import_module(_ROOT).__path__[0]), load_of_machine()
    with threadpool_limits(experiment.threads):
        outcome = experiment.run(scale, chosen)
    record = {
        "method": experiment.method,
        "claim": experiment.claim,
        "baseline": experiment.baseline,
        "reproduced": bool(outcome.reproduced),
        "margin": _plain(outcome.margin),
        **_parts(outcome),
        "earlier": [asdict(earlier) for earlier in experiment.earlier],
        "summary": outcome.summary,
        "table": [{key: _plain(value) for key, value in row.items()} for row in outcome.table],
        "seeds": chosen,
        "scale": scale,
        "seconds": round(time.perf_counter() - start, 1),
        "noise": _plain(outcome.noise),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "machine": {
            "processor": processor(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "threads": experiment.threads,
            "load_before": before,
        },
        "versions": _versions(),
    }
    if folder is not None:
        _write(record, outcome.figure, Path(folder))
    return record


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _write(record: dict[str, Any], figure: Figure, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = record["method"]
    picture = figure.to_json()
    write_text(folder / f"{name}.figure.json", picture + "\n")
    # Not an error: the experiment has been run, and what it found is in the other files.
    if _exists("matplotlib"):
        write_text(folder / f"{name}.html", page_with(figure, name, record["claim"]))
    # Last, so that a record on disk means that its picture is there too.
    write_text(folder / f"{name}.json", json.dumps(record, indent=1, allow_nan=False) + "\n")


def _parts(outcome: Outcome) -> dict[str, Any]:
    """Return the entry on the rule's parts, if it was judged by them."""
    slacks = {part: _plain(slack) for part, slack in outcome.slacks.items()}
    return {"slacks": slacks} if slacks else {}


def _plain(value: Any) -> Any:
    """Return numbers as Python's own with six digits, and None for NaN and infinities."""
    if isinstance(value, bool | str | int) or value is None:
        return value
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None


def _versions() -> dict[str, str]:
    return {**{name: version(name) for name in _VERSIONED}, "python": platform.python_version()}
