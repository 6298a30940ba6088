"""The record of a calibration: what was asked, what was measured, on what."""

from __future__ import annotations

__all__ = ["ActivationRecord", "SiteRecord"]

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.records import kind_of, restored
from ..parts.activations.attached import Tally


@dataclass
class SiteRecord:
    """What is dropped at one layer.

    Parameters
    ----------
    name : str
        The layer's name.
    side : str
        ``"inputs"`` or ``"outputs"``.
    place : str
        Path of the selection in the model.
    block : int
        Index of its block.
    weights : int
        Weights that no token would read if every entry were dropped.
    level : float
        Sparsity asked of it.
    sparsity : float, default 0
        Share of entries that were zero or dropped on the calibration data.
    skipped : float, default 0
        Share of `weights` not read, on the calibration data.
    evaluated : float, optional
        As `sparsity`, on the evaluation data.
    """

    name: str
    side: str
    place: str
    block: int
    weights: int
    level: float
    sparsity: float = 0.0
    skipped: float = 0.0
    evaluated: float | None = None

    @property
    def kind(self) -> str:
        """The last part of the name, such as ``"q_proj"``."""
        return kind_of(self.name)


@dataclass
class ActivationRecord:
    """A calibration, as data: kept beside the model.

    Parameters
    ----------
    model : str
        Name or folder of the dense model.
    method : str
        Card name, or ``"recipe"`` for a composed one.
    recipe : str
        The exact recipe as a Python expression.
    sparsity_asked : float
        Share of the sites' weights that a token need not read.
    calibration : dict
        What thresholds were calibrated on: ``source``, ``windows``, ``length``.
    sites : list of SiteRecord
        In the order in which they run.
    coverage : dict
        Numbers of ``parameters`` and of ``covered`` ones, of those ``kept`` dense by reason, and
        of those ``not_understood`` by name.
    unseen : list of str
        Layers that the calibration data never reached, which stay dense.
    timings : dict of str to float
        Seconds: ``total``.
    versions : dict of str to str
        Of Thresher, torch and others.
    evaluation : dict
        Perplexities and the like, filled by an evaluation.
    """

    model: str
    method: str
    recipe: str
    sparsity_asked: float
    calibration: dict[str, Any] = field(default_factory=dict)
    sites: list[SiteRecord] = field(default_factory=list)
    coverage: dict[str, Any] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)

    @property
    def sparsity(self) -> float:
        """Share of the sites' weights that were not read on the calibration data."""
        return _mean([(site.skipped, site.weights) for site in self.sites])

    @property
    def skipped(self) -> float:
        """Share of all covered weights that were not read on the calibration data."""
        covered = self.coverage.get("covered", 0)
        return sum(s.skipped * s.weights for s in self.sites) / covered if covered else 0.0

    def evaluated_on(self, tallies: Mapping[str, Tally]) -> None:
        """Note what was counted on evaluation data."""
        for site in self.sites:
            if site.place in tallies:
                site.evaluated = tallies[site.place].sparsity

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ActivationRecord:
        """Return the record that :meth:`to_json` wrote, here or in another version.

        Raises
        ------
        ValueError
            If it is no JSON, or a value is missing or of another type.
        """
        return restored(cls, json.loads(text))

    def __repr__(self) -> str:
        return (
            f"ActivationRecord({self.method}, {len(self.sites)} sites, sparsity "
            f"{self.sparsity:.4f} of {self.sparsity_asked:g} asked, "
            f"{self.timings.get('total', 0.0):.1f} s)"
        )


def _mean(pairs: list[tuple[float, int]]) -> float:
    return sum(share * weight for share, weight in pairs) / max(1, sum(w for _, w in pairs))
