"""Studies of activation sparsity on SmolLM2-135M, from statistics that all methods share.

Every draw takes other windows to calibrate on and other windows to be measured on. What layers are
given is collected once a draw, on the dense model as in the papers, so that each method and
sparsity costs its thresholds and one evaluation. (:func:`thresher.activate` calibrates each block
on what the sparse blocks before it leave.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thresher.activate.calibrate import attachable
from thresher.activate.cats import CATS
from thresher.activate.granularity import Granularity
from thresher.activate.recipe import ActivationRecipe
from thresher.parts.activations.attached import counting
from thresher.parts.activations.selection import Selection
from thresher.parts.activations.sites import Site
from thresher.parts.coverage import cover
from thresher.parts.input_rows import InputRows
from thresher.parts.statistics import Statistics
from thresher.stream.collect import collect_inputs
from thresher.stream.source import InMemory
from thresher.stream.stream import Stream
from thresher.stream.units import find_units

from ._one_shot import LENGTH, language_model, log_perplexity, windows
from ._study import Draw, Study

#: Windows of a draw to calibrate on, and to be measured on.
CALIBRATION, HELD_OUT = 4, 2

#: Share of a block's weights that dropping all its neurons saves: two of the three matrices of the
#: network, of which all of attention's weights are a third.
_NEURONS = 0.5

PROTOCOL = (
    f"SmolLM2-135M-Instruct, whose weights come rounded to 4 bits, 50 times smaller than the "
    f"smallest model of the paper; calibrated on {CALIBRATION} windows of {LENGTH} tokens of State "
    f"of the Union addresses from 1990 to 2013, measured on {HELD_OUT} windows of those since "
    "2014, others in every draw; activations of every token are dropped, the first one's too. "
    "Scales below 1 run the first blocks of the model alone and say nothing of the claim."
)


@dataclass(frozen=True)
class Unit:
    """What one draw saw of a block: its sites by granularity, and the inputs of its layers."""

    sites: Mapping[Granularity, Sequence[Site]]
    statistics: Mapping[str, Statistics]


# By identity, so that what is read off one draw can be remembered.
@dataclass(frozen=True, eq=False)
class Seen:
    """The dense model, and what one draw saw of it."""

    model: nn.Module
    units: Sequence[Unit]
    covered: int
    held_out: torch.Tensor


@dataclass(frozen=True)
class Problem:
    """One setting of one draw."""

    setting: Any
    seen: Seen


@dataclass(frozen=True)
class Answer:
    """What a method made of the model."""

    log_perplexity: float
    read: float


def activations(
    over: str,
    settings: Mapping[Any, Any],
    methods: Mapping[str, Callable[[Any], ActivationRecipe | None]],
    rivals: Mapping[str, Callable[[nn.Module], AbstractContextManager[Any]]] | None = None,
) -> Study:
    """Return a study that makes SmolLM2's activations sparse by every method, and has it dense.

    Parameters
    ----------
    over : str
        What the settings are.
    settings : mapping
        See :class:`~thresher.evidence._study.Study`.
    methods : mapping of str to callable
        ``method(setting)`` returns the recipe, with a sparsity, or None where it does not apply.
        Every site has the same.
    rivals : mapping of str to callable, optional
        ``rival(model)`` returns a context in which the model is what another method makes of it.
    """
    probe = [of(setting) for setting in settings.values() for of in methods.values()]
    granularities = frozenset(recipe.granularity for recipe in probe if recipe is not None)

    def draw(setting: Any, drawn: Draw) -> Problem:
        return Problem(setting, _seen(drawn, granularities))

    def method(of: Callable[[Any], ActivationRecipe | None]) -> Callable[[Problem], Answer | None]:
        def run(problem: Problem) -> Answer | None:
            recipe = of(problem.setting)
            return None if recipe is None else _measured(problem.seen, recipe)

        return run

    def rival(
        context: Callable[[nn.Module], AbstractContextManager[Any]],
    ) -> Callable[[Problem], Answer]:
        def run(problem: Problem) -> Answer:
            with context(problem.seen.model):
                return _dense(problem.seen)

        return run

    return Study(
        over=(over,),
        settings=settings,
        draw=draw,
        methods={name: method(of) for name, of in methods.items()}
        | {name: rival(context) for name, context in (rivals or {}).items()}
        | {"dense": lambda problem: _dense(problem.seen)},
        measures={
            "log_perplexity": lambda answer, _: answer.log_perplexity,
            "read": lambda answer, _: answer.read,
        },
        workers=2,
    )


def sparse(recipe: ActivationRecipe) -> Callable[[float], ActivationRecipe]:
    """Return the method that gives `recipe` the sparsity that a setting is."""
    return lambda sparsity: recipe.with_options(sparsity)


def cats_reading(sparsity: float) -> ActivationRecipe | None:
    """Return CATS with such a share of a block's weights not read, None where it has too few."""
    return CATS(sparsity=sparsity / _NEURONS) if sparsity < _NEURONS else None


def _measured(seen: Seen, recipe: ActivationRecipe) -> Answer:
    """Return what is measured with every site at the recipe's sparsity, and undo it."""
    attached_to: list[tuple[Site, Selection]] = []
    try:
        for unit in seen.units:
            sites = unit.sites[recipe.granularity]
            select = recipe.selector(sites, unit.statistics)
            for site in sites:
                selection = select(site, recipe.target)
                site.attach(selection)
                attached_to.append((site, selection))
        with counting() as tallies:
            found = log_perplexity(seen.model, seen.held_out)
    finally:
        for site, _ in attached_to:
            site.remove()
    skipped = sum(
        site.weights * recipe.rule.share(selection, site, tallies[selection.place].sparsity)
        for site, selection in attached_to
    )
    return Answer(found, 1 - skipped / seen.covered)


def _dense(seen: Seen) -> Answer:
    return Answer(log_perplexity(seen.model, seen.held_out), 1.0)


@functools.lru_cache(maxsize=1)
def _seen(drawn: Draw, granularities: frozenset[Granularity]) -> Seen:
    """Return the model with what a draw saw of it; the last draw's is kept."""
    rng = drawn.rng
    first, last = windows()
    data = first[rng.permutation(len(first))[: drawn.amount(CALIBRATION, 2)]]
    held_out = last[rng.permutation(len(last))[: drawn.amount(HELD_OUT)]]
    model = language_model(min(1.0, drawn.scale))
    coverage = cover(model)
    layers = attachable(coverage)
    samples = [{"input_ids": window[None]} for window in data]
    stream = Stream(InMemory(model), find_units(model, layers), samples)
    units = []
    with torch.no_grad(), closing(stream.visits()) as visits:
        for visit in visits:
            sites = {each: each(visit, visit.unit.layers) for each in granularities}
            statistics = collect_inputs(model, visit.unit.layers, {InputRows}, visit.run)
            units.append(Unit(sites, statistics))
    return Seen(model, units, sum(layer.weight.numel() for layer in layers), held_out)
