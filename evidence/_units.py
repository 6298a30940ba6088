"""Studies of whole units removed from SmolLM2-135M, from statistics that all methods share.

As in :mod:`._one_shot`, the moments of a draw are collected once, on the dense model. What takes a
removed unit is masked instead of cut, which gives the same numbers, and is dense again afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thresher.parts.coverage import find_layers
from thresher.parts.groups.find import Coupled, Group, find_groups
from thresher.parts.layers import Layer
from thresher.parts.moments import Gradient, Moment, Norm, forward
from thresher.parts.rankings import AllByScore, ByScore, Ranking
from thresher.parts.scores import GradientMagnitude, InputNorm, Magnitude
from thresher.parts.spreads import Incremental, Ranked, Removed
from thresher.parts.statistics import Statistics
from thresher.prune.losses import default_loss
from thresher.prune.unit_bias import add_biases, put_into_bias
from thresher.prune.unit_recipe import UnitRecipe
from thresher.prune.unit_refit import columns_that_stay, made_up
from thresher.prune.unit_search import Attention, Candidates, find_attentions, is_heads
from thresher.prune.unit_survey import Survey
from thresher.stream.change import AngularChange
from thresher.stream.collect import collect_inputs
from thresher.stream.gradients import collect_gradients
from thresher.stream.source import InMemory
from thresher.stream.stream import Stream
from thresher.stream.units import find_units

from ._one_shot import LENGTH, block_of, language_model, log_perplexity, windows
from ._study import Draw, Study

#: Windows of a draw to calibrate on, to take gradients of, and to be measured on.
CALIBRATION, GRADIENTS, HELD_OUT = 8, 4, 2
#: Every so many-th block loses units, but for the first and last ones, as LLM-Pruner has it.
EVERY, FIRST, LAST = 3, 4, 2

#: The same share of every group, by magnitude times input norm, with nothing to make up for it.
WANDA = UnitRecipe(ByScore(Magnitude() * InputNorm()), Incremental(first=1.0))
#: Likewise by what the loss changes to first order, added up over all weights of a unit.
LLM_PRUNER = UnitRecipe(AllByScore(Magnitude() * GradientMagnitude()), Incremental(first=1.0))

#: Where the figures of such a study come from, for its note.
PROTOCOL = (
    "SmolLM2-135M-Instruct, of whose blocks every third loses units, but for the first four and "
    f"last two, which LLM-Pruner leaves out as well; calibrated on {CALIBRATION} windows of "
    f"{LENGTH} tokens of State of the Union addresses and measured on {HELD_OUT} windows of later "
    "ones, others in every draw. All layers are calibrated on the dense model."
)


# By identity, so that what is read off one draw can be remembered.
@dataclass(frozen=True, eq=False)
class Watched:
    """The dense model, its groups, and what one draw saw of it."""

    model: Any
    coupled: Coupled
    groups: Sequence[Group]
    layers: Mapping[str, list[Layer]]
    samples: Sequence[Any]
    changes: Mapping[int, float]
    dense: Mapping[str, torch.Tensor]
    statistics: Mapping[str, Statistics]
    held_out: torch.Tensor


@dataclass(frozen=True)
class Problem:
    """The share of weights to remove, and what there is to know of the model."""

    removed: float
    watched: Watched


def of_units(
    settings: Mapping[Any, float],
    methods: Mapping[str, UnitRecipe | Callable[[Problem], float]],
    workers: int = 1,
) -> Study:
    """Return a study that removes units by every method, and has the dense model beside them.

    Parameters
    ----------
    settings : mapping of str to float
        Shares of the weights of the chosen blocks to remove.
    methods : mapping of str to UnitRecipe or callable
        A callable returns the log-perplexity of what it makes of a problem.
    workers : int, default 1
        Draws at a time, each with a model of its own.
    """
    recipes = [method for method in methods.values() if isinstance(method, UnitRecipe)]
    needs = frozenset().union(*(recipe.needs for recipe in recipes))
    runs = {
        name: _without(method) if isinstance(method, UnitRecipe) else method
        for name, method in methods.items()
    }
    return Study(
        over=("removed",),
        settings=settings,
        draw=lambda removed, drawn: Problem(removed, _watched(drawn, needs)),
        methods=runs | {"dense": lambda problem: _measured(problem.watched)},
        measures={"log_perplexity": lambda answer, _: answer},
        workers=workers,
    )


def _without(recipe: UnitRecipe) -> Callable[[Problem], float]:
    """Return what a model has come to without the units that a recipe removes."""

    @torch.no_grad()
    def run(problem: Problem) -> float:
        seen = problem.watched
        candidates = Candidates(
            seen.model,
            seen.coupled,
            seen.layers,
            _ranked(seen, recipe.ranking, recipe.heads),
            find_attentions(seen.coupled, seen.groups, seen.layers),
            seen.samples,
            default_loss,
            lambda layers: Stream(
                InMemory(seen.model), find_units(seen.model, layers), seen.samples
            ),
        )
        target = (1 - problem.removed) * candidates.weights({})
        removed, attentions = recipe.choose(candidates, target)
        with ExitStack() as stack:
            stack.enter_context(masked(seen, recipe, removed))
            for attention in attentions:
                stack.enter_context(attention.silenced())
            return _measured(seen)

    return run


def short_gpt(problem: Problem) -> float:
    """Return what a model has come to without the whole blocks that change the states least.

    The rule of ShortGPT (Men et al., 2024). The share to remove is taken in whole blocks.
    """
    seen = problem.watched
    blocks = sorted({block_of(layer) for found in seen.layers.values() for layer in found})
    count = round(problem.removed * len(blocks))
    gone = set(sorted(blocks, key=lambda block: seen.changes[block])[:count])
    layers = [la for found in seen.layers.values() for la in found if block_of(la) in gone]
    with Attention("blocks", tuple(layers)).silenced():
        return _measured(seen)


@torch.no_grad()
def _measured(seen: Watched) -> float:
    return log_perplexity(seen.model, seen.held_out)


@functools.lru_cache(maxsize=8)
def _ranked(seen: Watched, ranking: Ranking, heads: bool) -> list[Ranked]:
    """Return what the units of a draw cost."""
    groups = [group for group in seen.groups if heads or not is_heads(group)]
    survey = Survey(ranking, dict(seen.layers), groups)
    blocks = seen.model.config.num_hidden_layers
    for layer in survey.watched:
        block = block_of(layer)
        statistics, place = seen.statistics[layer.name], block / max(1, blocks - 1)
        survey.ask(layer, statistics, place, seen.changes[block])
    return survey.ranked(seen.model)


@contextmanager
def masked(seen: Watched, recipe: UnitRecipe, removed: Removed) -> Iterator[None]:
    """Have the model without units while the context lasts, the others making up for them."""
    masks = columns_that_stay(seen.layers, seen.groups, removed)
    layers = [la for found in seen.layers.values() for la in found if la.name in masks]
    before = {layer.name: layer.module.bias for layer in layers}
    try:
        if recipe.bias:
            add_biases(layers)
        for layer in layers:
            statistics, stay = seen.statistics[layer.name], masks[layer.name]
            if recipe.bias:
                put_into_bias(layer, stay, statistics[Norm].mean)
            layer.overwrite(made_up(layer, stay, recipe.update, statistics))
        yield
    finally:
        for layer in layers:
            layer.module.bias = before[layer.name]
            layer.overwrite(layer.store(seen.dense[layer.name]))


@functools.lru_cache(maxsize=1)
def _watched(drawn: Draw, needs: frozenset[type[Moment]]) -> Watched:
    """Return the model with what a draw saw of it; the last draw's is kept."""
    rng = drawn.rng
    first, last = windows()
    data = first[rng.permutation(len(first))[: drawn.amount(CALIBRATION, 2)]]
    held_out = last[rng.permutation(len(last))[: drawn.amount(HELD_OUT)]]
    model, coupled, layers = _model(min(1.0, drawn.scale))
    every = [layer for found in layers.values() for layer in found]
    samples = [{"input_ids": window[None]} for window in data]
    changes = {block_of(layer): AngularChange() for layer in every}

    def run() -> None:
        for window in data:
            model.get_decoder()(input_ids=window[None], use_cache=False)

    with torch.no_grad(), ExitStack() as stack:
        for block, change in changes.items():
            stack.enter_context(change.watching(model.get_decoder().layers[block]))
        statistics = collect_inputs(model, every, forward(needs), run)
    if Gradient in needs:
        units, some = find_units(model, every), samples[:GRADIENTS]
        found = collect_gradients(InMemory(model), units, {Gradient}, some, default_loss)
        for name, of_layer in found.items():
            statistics[name].adopt_gradients(of_layer)
    groups = [
        group
        for group in coupled.groups
        # What is within a head goes or stays as a whole.
        if "#" not in group.name and all(member.parameter in layers for member in group.members)
    ]
    dense = {layer.name: layer.matrix().clone() for layer in every}
    measured = {block: change.value for block, change in changes.items()}
    return Watched(model, coupled, groups, layers, samples, measured, dense, statistics, held_out)


@functools.lru_cache(maxsize=1)
def _model(share: float) -> tuple[nn.Module, Coupled, dict[str, list[Layer]]]:
    """Return the model, what is coupled in it, and the layers of the blocks to make smaller."""
    model: Any = language_model(share)
    example = {"input_ids": torch.arange(8)[None]}
    with torch.no_grad():
        coupled = find_groups(model, lambda module: module(**example, use_cache=False), example)
    blocks = range(FIRST, model.config.num_hidden_layers - LAST, EVERY) or range(1)
    layers: dict[str, list[Layer]] = {}
    for layer in find_layers(model):
        if block_of(layer) in blocks:
            layers.setdefault(layer.parameter, []).append(layer)
    return model, coupled, layers
