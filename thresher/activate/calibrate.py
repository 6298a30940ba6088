"""Calibrating the activations of a model, one unit after another."""

from __future__ import annotations

__all__ = ["attachable", "calibrate"]

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch

from ..core.errors import LayerError
from ..core.machine import versions
from ..parts.activations.attached import Tally, attached, counting
from ..parts.activations.selection import Selection
from ..parts.activations.sites import Site
from ..parts.coverage import Coverage
from ..parts.input_rows import InputRows
from ..parts.layers import Layer
from ..parts.statistics import Statistics
from ..stream.collect import collect_inputs
from ..stream.passes import calibrating
from ..stream.precision import Precision
from ..stream.proof import Order
from ..stream.source import Source
from ..stream.stream import Stream
from ..stream.units import find_units
from ..stream.uses import find_uses
from ..stream.visit import Visit
from ..stream.walk import call_on_copy
from .recipe import ActivationRecipe
from .record import ActivationRecord, SiteRecord

#: A layer of fewer channels has nothing to choose among.
_FEW_CHANNELS = 8


def calibrate(
    source: Source,
    coverage: Coverage,
    recipe: ActivationRecipe,
    samples: Sequence[Any],
    precision: Precision,
    advance: Callable[..., None] = lambda text: None,
) -> ActivationRecord:
    """Attach selections to a model's layers, each calibrated on what those before it leave.

    Parameters
    ----------
    source : Source
        The model; selections are attached to its modules.
    coverage : Coverage
        Of the model. Layers that nothing can be attached to become kept ones.
    recipe : ActivationRecipe
        What to drop, with a sparsity.
    samples : sequence
        Inputs of the model.
    precision : Precision
        Of forward passes.
    advance : callable, optional
        ``advance(text)`` is called when a unit is done.

    Returns
    -------
    ActivationRecord
        Without the name of the model and a description of the samples.

    Raises
    ------
    LayerError
        If there is no site in the whole model.
    """
    started = time.perf_counter()
    find_uses(source, coverage, samples)
    run = _Run(source, attachable(coverage), recipe, samples, precision)
    with torch.no_grad():
        run.execute(advance)
        for selection in attached(source.model).values():
            selection.to(precision.stored)
    covered = coverage.summary()
    covered["covered"] = covered.pop("pruned")
    card = getattr(recipe, "card", None)
    return ActivationRecord(
        model="",
        method=card.name if card else "recipe",
        recipe=repr(recipe),
        sparsity_asked=recipe.target,
        sites=run.records(),
        coverage=covered,
        unseen=run.unseen,
        timings={"total": time.perf_counter() - started},
        versions=versions(),
    )


def attachable(coverage: Coverage) -> list[Layer]:
    """Return the layers that selections can be attached to; the others become kept ones."""
    found = []
    for layer in coverage.layers:
        reason = _why_not(layer)
        if reason is None:
            found.append(layer)
        else:
            coverage.kept[layer.parameter] = reason
    coverage.layers = found
    return found


def _why_not(layer: Layer) -> str | None:
    """Return why no selection can be attached to a layer, None where one can."""
    if not layer.is_called or layer.readers or layer.part is not None:
        return "multiplied without a call of its own"
    if len(layer.users) > 1:
        return "weight used in several places"
    return "few channels" if Site.of_inputs(layer).channels < _FEW_CHANNELS else None


class _Run:
    def __init__(
        self,
        source: Source,
        layers: Sequence[Layer],
        recipe: ActivationRecipe,
        samples: Sequence[Any],
        precision: Precision,
    ) -> None:
        self.source, self.recipe, self.samples = source, recipe, samples
        self.names = {layer.name for layer in layers}
        self.units = find_units(source.model, layers)
        self.stream = Stream(source, self.units, samples, precision=precision)
        # Samples wait within a unit's forward, where what was attached to the unit itself comes
        # too late; passes of the whole model show it.
        modules = {layer.module for layer in layers}
        lone = {unit.name for unit in self.units if unit.module in modules}
        order = self.stream.order
        self.stream.order = Order(order.units, order.whole | lone)
        self.unseen: list[str] = []
        self._done: list[tuple[Site, Selection, SiteRecord]] = []
        self._tallies: dict[str, Tally] = {}

    def execute(self, advance: Callable[..., None]) -> None:
        with counting() as self._tallies, closing(self.stream.visits()) as visits:
            for visit in visits:
                done = self._visit(visit)
                # Trials were counted too; what is counted from now on is the samples' way through.
                for _, selection, _ in done:
                    self._tallies.pop(selection.place, None)
                self._done += done
                advance(f"calibrated {visit.unit.name}")
        if not self._done:
            raise LayerError(
                f"{type(self.source.model).__name__} has nothing that {self.recipe.granularity!r} "
                "can drop: no feed-forward network is recognised whose activation is zero at zero; "
                "use a method that drops inputs, such as 'teal'"
            )
        if any(selection.place not in self._tallies for _, selection, _ in self._done):
            self._count_whole_passes()
        if self.unseen:
            warnings.warn(
                f"the calibration data never reaches {len(self.unseen)} layers, such as "
                f"{self.unseen[0]!r}, which stay dense; pass more data",
                stacklevel=4,
            )

    def records(self) -> list[SiteRecord]:
        for site, selection, record in self._done:
            tally = self._tallies.get(selection.place, Tally())
            record.sparsity = tally.sparsity
            record.skipped = self.recipe.rule.share(selection, site, tally.sparsity)
        return [record for _, _, record in self._done]

    def _visit(self, visit: Visit) -> list[tuple[Site, Selection, SiteRecord]]:
        sites, statistics = self._seen(visit)
        select = self.recipe.selector(sites, statistics)
        levels = self.recipe.levels(visit, sites, select, self.recipe.target)
        done = []
        for site, level in zip(sites, levels, strict=True):
            selection = select(site, level)
            site.attach(selection)
            place = (site.name, site.side, selection.place)
            record = SiteRecord(*place, visit.index, site.weights, level)
            done.append((site, selection, record))
        return done

    def _seen(self, visit: Visit) -> tuple[list[Site], dict[str, Statistics]]:
        """Return the sites of a unit that the data reaches, and what it showed there."""
        layers = [layer for layer in visit.unit.layers if layer.name in self.names]
        sites = self.recipe.granularity(visit, layers)
        watched = {each.name: each for site in sites for each in site.watched}
        if not watched:
            return [], {}
        found = collect_inputs(self.source.model, list(watched.values()), {InputRows}, visit.run)
        idle = {name for name, statistics in found.items() if statistics.tokens == 0}
        reached = [s for s in sites if not idle & {each.name for each in s.watched}]
        self.unseen += [site.name for site in sites if site not in reached]
        return reached, found

    def _count_whole_passes(self) -> None:
        """Count what is dropped where samples did not go on by themselves."""
        self._tallies.clear()
        source = self.source
        with (
            counting() as self._tallies,
            calibrating(source.model),
            source.opened(self.units),
            source.on_demand(self.units),
        ):
            for sample in self.samples:
                call_on_copy(source.model, sample)
