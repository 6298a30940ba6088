"""The record of a pruning run: what was asked, what was reached, what it cost."""

from __future__ import annotations

__all__ = ["LayerRecord", "PruneRecord", "circumstances"]

import dataclasses
import functools
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core.machine import commit_of, processor
from ..core.notebook import html_table
from ..core.records import kind_of, restored

#: From this share of the kept weights on it is said that they are zero.
_NOTABLE = 0.01
#: And from this share of all weights on, that they were zero and are not any more.
_REVIVED = 0.005


@dataclass
class LayerRecord:
    """What happened to one layer.

    Parameters
    ----------
    name : str
        The layer's name.
    block : int
        Index of its block.
    shape : list of int
        Shape of its weight.
    kept : int
        Weights that survive.
    error : float
        Squared change of the layer's output relative to the output's square, on a sample of
        calibration inputs (of the weights, where no input was seen). The sample is another where
        data come in other batches: errors of two such runs may be twice apart and mean the same.
    seconds : float
        Time to choose and update.
    histogram : dict
        ``edges``, ``dense`` and ``pruned``: counts of weights by value, removed ones left out.
    zeros : int, default 0
        Weights that survive and are zero all the same: they were before, or their input never
        was anything but zero, so that an update had no use for them.
    revived : int, default 0
        Weights that were zero before and are not any more.
    """

    name: str
    block: int
    shape: list[int]
    kept: int
    error: float
    seconds: float
    histogram: dict[str, list[float]]
    zeros: int = 0
    revived: int = 0

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def density(self) -> float:
        """Share of weights that survive."""
        return self.kept / self.size if self.size else 1.0

    def fits(self, found: int) -> bool:
        """Return whether a count of weights is this layer's, kept zeros being counted or not."""
        slack = 0.005 * self.size
        return self.kept - self.zeros - slack <= found <= self.kept + slack

    @property
    def kind(self) -> str:
        """The last part of the name, such as ``"q_proj"``."""
        return kind_of(self.name)


@dataclass
class PruneRecord:
    """A pruning run, as data: kept beside the model and shown in the report.

    Parameters
    ----------
    model : str
        Name or folder of the dense model.
    method : str
        Card name, or ``"recipe"`` for a composed one.
    recipe : str
        The exact recipe as a Python expression.
    pattern : str
        Specification of the pattern.
    density_asked : float
        Share of prunable weights to keep.
    calibration : dict
        What the model was calibrated on: ``source``, ``windows``, ``length``.
    layers : list of LayerRecord
        In the order in which they run.
    coverage : dict
        Numbers of ``parameters`` and of ``pruned`` ones, of those ``kept`` dense on purpose by
        reason, and of those ``not_understood`` by name.
    unseen : list of str
        Layers that the calibration data never reached.
    fingerprint : str
        Of the model, data, options and versions of a run from disk.
    timings : dict of str to float
        Seconds by phase of pruning, and ``total`` where phases leave out loading and writing;
        ``measuring`` is what evaluation took besides.
    peak_bytes : int
        Peak resident memory of the process while pruning.
    versions : dict of str to str
        Of Thresher, torch and others.
    made : dict of str to str
        How, when and where: ``command``, ``date`` (UTC), ``device``, ``processor`` and, from a
        checkout, ``commit``; see :func:`circumstances`.
    structure : dict
        Where units were removed: by coupled group the ``removed`` ones, the ``weights`` of the
        layers ``before`` and ``after``, numbers of modules that say sizes as ``settings``,
        attentions that are zero as a whole as ``silent``, by the layer that gives their output,
        and why what is left ``whole`` was; empty otherwise.
    evaluation : dict
        Perplexities and the like, filled by an evaluation.
    tasks : dict
        What was measured of tasks, by task and measure: of the ``pruned`` model and of the
        ``dense`` one.
    speed : dict
        What ``thresher bench --save`` measured, see
        :class:`~thresher.run.measure.bench.BenchResult`, and where.
    healing : dict
        How the pruned model was trained afterwards, see
        :class:`~thresher.prune.heal.record.HealRecord`; empty if it was not. Errors and
        histograms of layers are then still those of pruning.
    parts : dict
        The recipe as data, see :meth:`~thresher.prune.written.Written.to_data`; empty where a part
        of a user's own cannot be written so.
    """

    model: str
    method: str
    recipe: str
    pattern: str
    density_asked: float
    calibration: dict[str, Any] = field(default_factory=dict)
    layers: list[LayerRecord] = field(default_factory=list)
    coverage: dict[str, Any] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    fingerprint: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    structure: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    healing: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Share of the pruned layers' weights that survive; of a smaller model, of all covered."""
        if weights := self.structure.get("weights"):
            return float(weights["after"] / weights["before"])
        return sum(r.kept for r in self.layers) / max(1, sum(r.size for r in self.layers))

    def add_weights(self, also: PruneRecord) -> None:
        """Add what became of the weights that removing parts of the model had left.

        Parameters
        ----------
        also : PruneRecord
            Of pruning the smaller model.
        """
        self.layers = also.layers
        self.pattern = also.pattern
        self.unseen = also.unseen
        self.structure["weights"]["after"] = sum(layer.kept for layer in also.layers)
        self.timings["weights"] = sum(also.timings.values())

    def warn_of_revived(self) -> None:
        """Warn where a notable share of weights was zero before and is not any more."""
        revived = sum(layer.revived for layer in self.layers)
        if revived > _REVIVED * sum(layer.size for layer in self.layers):
            warnings.warn(
                f"{revived} weights were zero before and are not any more: the model was sparse, "
                f"and {self.method!r} chose among all of its weights; remove more than was removed "
                "already, or use a method that leaves weights as they are, such as 'wanda'",
                stacklevel=3,
            )

    @property
    def notable_zeros(self) -> float:
        """Share of the surviving weights that are zero all the same; 0 up to 1 %."""
        share = sum(r.zeros for r in self.layers) / max(1, sum(r.kept for r in self.layers))
        return share if share > _NOTABLE else 0.0

    @property
    def blocks(self) -> int:
        """Number of blocks that the pruned layers lie in."""
        return len({layer.block for layer in self.layers})

    @property
    def seconds(self) -> float:
        """Time to prune: ``total`` where it was taken, otherwise the phases' sum."""
        phases = (spent for name, spent in self.timings.items() if name != "measuring")
        return self.timings.get("total", sum(phases))

    def recounted(self, kept: Mapping[str, int]) -> PruneRecord:
        """Return this record with the counts that were found in the weights, where they differ.

        A kept weight may be zero, and be counted or not, so that counts are replaced only where
        they lie outside of both by more than half a percent of the layer's weights.

        Parameters
        ----------
        kept : mapping of str to int
            Weights that are not zero, by layer; layers that it does not name are left as they are.

        Returns
        -------
        PruneRecord
            This very record if it fits.
        """
        changed = {
            layer.name: kept[layer.name]
            for layer in self.layers
            if layer.name in kept and not layer.fits(kept[layer.name])
        }
        if not changed:
            return self
        layers = [
            dataclasses.replace(layer, kept=changed[layer.name], zeros=0)
            if layer.name in changed
            else layer
            for layer in self.layers
        ]
        return dataclasses.replace(self, layers=layers)

    def take_evaluation(self, found: Mapping[str, Any]) -> None:
        """Take the figures of an evaluation in place of those of another text.

        Parameters
        ----------
        found : mapping of str to object
            With the ``digest`` of the windows. What was measured on others is left out: figures
            of two texts do not compare.
        """
        if found["digest"] != self.evaluation.get("digest"):
            self.forget_evaluation()
        self.evaluation |= found

    def forget_evaluation(self) -> None:
        """Leave out what was measured on a text; bytes are no text's."""
        held = self.evaluation.items()
        self.evaluation = {key: value for key, value in held if key.endswith("_bytes")}

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> PruneRecord:
        """Return the record that :meth:`to_json` wrote, here or in another version.

        Keys that this version does not know are left out.

        Raises
        ------
        ValueError
            If it is no JSON, or a value is missing or of another type.
        """
        return restored(cls, json.loads(text))

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        held = self.evaluation
        figures = {
            "pattern": self.pattern,
            "density": f"{self.density:.4f} of {self.density_asked:g} asked",
            "layers": len(self.layers),
            "perplexity, dense": held.get("dense_perplexity"),
            "perplexity, pruned": held.get("pruned_perplexity"),
            "bytes on disk, dense": held.get("dense_bytes"),
            "bytes on disk, sparse": held.get("sparse_bytes"),
            "times faster": self.speed.get("speedup"),
            "seconds": round(self.seconds, 1),
        }
        rows = [
            (name, f"{value:,.4g}" if isinstance(value, float) else value)
            for name, value in figures.items()
            if value is not None
        ]
        return html_table(f"{self.model}, pruned by {self.method}", rows)

    def __repr__(self) -> str:
        zeros = self.notable_zeros
        idle = f", {zeros:.1%} of the kept are zero" if zeros else ""
        return (
            f"PruneRecord({self.method}, {len(self.layers)} layers, density {self.density:.4f} of "
            f"{self.density_asked:g} asked{idle}, {self.seconds:.1f} s)"
        )


def circumstances(device: object) -> dict[str, str]:
    """Return when, on what and from which commit something is made.

    Parameters
    ----------
    device : torch.device or str
        Where it is computed.
    """
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": str(device),
        "processor": processor(),
    }
    commit = _commit()
    return {**found, "commit": commit} if commit else found


@functools.cache
def _commit() -> str | None:
    return commit_of(Path(__file__).parents[1])
