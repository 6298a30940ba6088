"""Studies of one-shot pruning on SmolLM2-135M, from statistics that all methods share.

Every draw takes other windows to calibrate on and other windows to be measured on. The moments of
the layers' inputs are collected once a draw, on the dense model, so that each method and sparsity
costs its masks and one evaluation. (Pruning by :func:`thresher.prune` calibrates each block on its
pruned predecessors, which costs two passes over the data for each.)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thresher.assets import smollm2, state_of_the_union
from thresher.parts.allotment import allot
from thresher.parts.budgets import LayerSummary, summarise
from thresher.parts.calibration import token_windows
from thresher.parts.chooser import MaskChooser
from thresher.parts.coverage import find_layers
from thresher.parts.input_rows import InputRows
from thresher.parts.layers import Layer
from thresher.parts.moments import Gram, Moment, forward, perturbed
from thresher.parts.scores import Score
from thresher.parts.statistics import Statistics
from thresher.prune import Recipe
from thresher.prune.losses import default_loss
from thresher.prune.memory import needed_moments
from thresher.prune.sparsellm import SparseLLM
from thresher.stream.collect import collect_inputs
from thresher.stream.feedforward import FeedForward, find_feed_forward
from thresher.stream.slopes import collect_slopes
from thresher.stream.source import InMemory
from thresher.stream.stream import Stream
from thresher.stream.units import find_units

from ._study import Draw, Study

#: Tokens per window; windows of a draw to calibrate on, and to be measured on.
LENGTH, CALIBRATION, HELD_OUT = 256, 16, 2
#: Scales from which on the model is SmolLM2's own blocks; below, a narrow one of random weights.
_REAL = 0.1
_NARROW = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
#: Windows of a draw for which weights move to and fro: two passes for every block.
MOVED = 2
_FIRST_YEARS, _LAST_YEARS = (1990, 2013), (2014, 2021)

#: Where the figures of such a study come from, for its note.
PROTOCOL = (
    f"SmolLM2-135M-Instruct, whose weights come rounded to 4 bits; calibrated on {CALIBRATION} "
    f"windows of {LENGTH} tokens of State of the Union addresses from {_FIRST_YEARS[0]} to "
    f"{_FIRST_YEARS[1]}, measured on {HELD_OUT} windows of those since, others in every draw. All "
    "layers are calibrated on the dense model, where papers take what the pruned layers before "
    "them pass on, and up to 64 times as many tokens. Scales below 1 run the first blocks of the "
    "model alone and say nothing of the claim."
)


# By identity, so that what is read off one draw can be remembered.
@dataclass(frozen=True, eq=False)
class Calibrated:
    """The dense model, and what one draw saw of it."""

    model: nn.Module
    layers: Sequence[Layer]
    dense: Sequence[torch.Tensor]
    statistics: Mapping[str, Statistics]
    networks: Sequence[FeedForward]
    held_out: torch.Tensor


@dataclass(frozen=True)
class Problem:
    """One setting of one draw."""

    setting: Any
    calibrated: Calibrated


@dataclass(frozen=True)
class Answer:
    """What a method made of the model."""

    log_perplexity: float = math.nan
    layer_error: float = math.nan


def one_shot(
    over: tuple[str, ...],
    settings: Mapping[Any, Any],
    methods: Mapping[str, Callable[[Any], Recipe | None]],
    *,
    of_block: Mapping[str, Callable[[Any], Recipe | None]] | None = None,
    layer_errors: bool = False,
    every: int = 1,
) -> Study:
    """Return a study that prunes SmolLM2 by every method, and has the dense model beside them.

    Parameters
    ----------
    over, settings
        See :class:`~thresher.evidence._study.Study`.
    methods : mapping of str to callable
        ``method(setting)`` returns the recipe, or None where it does not apply.
    of_block : mapping of str to callable, optional
        Methods that prune the middle block alone, and have no perplexity.
    layer_errors : bool, default False
        Whether the squared output error of the middle block's layers is measured, relative to
        their squared output.
    every : int, default 1
        Prune each so many-th block only.
    """
    alone = of_block or {}
    recipes = dict(methods) | dict(alone)
    probe = [recipe for setting in settings.values() for of in recipes.values()
             if (recipe := of(setting)) is not None]  # fmt: skip
    needs = frozenset().union(*(needed_moments(recipe) for recipe in probe))
    needs |= {Gram} if layer_errors else set()

    def draw(setting: Any, drawn: Draw) -> Problem:
        return Problem(setting, calibrated_on(drawn, needs, every))

    def method(name: str, of: Callable[[Any], Recipe | None]) -> Callable[[Problem], Any]:
        whole = name not in alone

        @torch.no_grad()
        def run(problem: Problem) -> Answer | None:
            recipe = of(problem.setting)
            if recipe is None:
                return None
            seen = problem.calibrated
            with pruned(recipe, seen, whole, layer_errors) as error:
                return _measured(seen, error) if whole else Answer(layer_error=error)

        return run

    return Study(
        over=over,
        settings=settings,
        draw=draw,
        methods={name: method(name, of) for name, of in recipes.items()}
        | {"dense": lambda problem: _measured(problem.calibrated)},
        measures={"log_perplexity": lambda answer, _: answer.log_perplexity}
        | ({"layer_error": lambda answer, _: answer.layer_error} if layer_errors else {}),
        workers=2,
    )


def cut(recipe: Recipe) -> Callable[[Mapping[str, Any]], Recipe]:
    """Return the method that gives `recipe` the options that a setting holds."""
    return lambda options: recipe.with_options(**options)


@torch.no_grad()
def _measured(seen: Calibrated, layer_error: float = math.nan) -> Answer:
    """Return what is measured of the model as it is."""
    return Answer(log_perplexity(seen.model, seen.held_out), layer_error)


@contextmanager
def pruned(
    recipe: Recipe, seen: Calibrated, whole: bool = True, layer_errors: bool = False
) -> Iterator[float]:
    """Prune the model or its middle block alone, give the block's error, and undo it."""
    blocks = sorted({block_of(layer) for layer in seen.layers})
    middle = blocks[len(blocks) // 2]
    errors: list[tuple[float, float]] = []
    counts = _counts(recipe, seen)
    together = _together(recipe, seen, counts)
    try:
        for layer, weight, keep in zip(seen.layers, seen.dense, counts, strict=True):
            if not whole and block_of(layer) != middle:
                continue
            statistics, shape = seen.statistics[layer.name], tuple(weight.shape)
            chooser = MaskChooser(recipe.score, recipe.pattern, keep, statistics, shape)
            pruned, _ = together.get(layer.name) or recipe.update(weight, chooser, statistics)
            if layer_errors and block_of(layer) == middle:
                errors.append(_squares(weight, pruned, statistics))
            layer.overwrite(layer.store(pruned))
        changed, output = (sum(parts) for parts in zip(*errors, strict=True)) if errors else (0, 0)
        yield changed / output if errors else math.nan
    finally:
        for layer, weight in zip(seen.layers, seen.dense, strict=True):
            layer.overwrite(layer.store(weight))


def _together(
    recipe: Recipe, seen: Calibrated, counts: Sequence[int]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return weights and masks of the layers that a recipe prunes together."""
    if not isinstance(recipe, SparseLLM):
        return {}
    by_name = {layer.name: keep for layer, keep in zip(seen.layers, counts, strict=True)}
    return recipe.prune_networks(seen.networks, seen.statistics, by_name)


def _counts(recipe: Recipe, seen: Calibrated) -> list[int]:
    """Return how many weights every layer keeps."""
    budget = recipe.budget
    score = (budget.score or recipe.score) if budget.surveys else None
    summaries = _summaries(seen, score)
    shapes = [tuple(weight.shape) for weight in seen.dense]
    return allot(recipe.pattern, shapes, budget(summaries, recipe.target), recipe.target)


@functools.lru_cache(maxsize=2)
def _summaries(seen: Calibrated, score: Score | None) -> list[LayerSummary]:
    """Return what a budget knows of every layer, with its scores where there is one."""
    return [
        summarise(
            layer.name,
            tuple(weight.shape),
            block_of(layer),
            None if score is None else score(weight, seen.statistics[layer.name]),
        )
        for layer, weight in zip(seen.layers, seen.dense, strict=True)
    ]


def _squares(
    weight: torch.Tensor, pruned: torch.Tensor, statistics: Statistics
) -> tuple[float, float]:
    """Return the mean squares of the output's error, and of the output, over calibration."""
    gram, change = statistics[Gram].value, weight - pruned
    return float(((change @ gram) * change).sum()), float(((weight @ gram) * weight).sum())


def block_of(layer: Layer) -> int:
    """Return the index of the block that a layer is in."""
    return int(layer.name.split(".layers.")[1].split(".")[0])


@torch.no_grad()
def log_perplexity(model: nn.Module, windows: torch.Tensor) -> float:
    """Return the mean loss in nats a token over windows that are read alone."""
    total = 0.0
    for window in windows:
        logits = model(input_ids=window[None], use_cache=False).logits[0, :-1].float()
        total += float(nn.functional.cross_entropy(logits, window[1:]))
    return total / len(windows)


@functools.lru_cache(maxsize=1)
def calibrated_on(drawn: Draw, needs: frozenset[type[Moment]], every: int) -> Calibrated:
    """Return the model with what a draw saw of it; the last draw's is kept."""
    rng = drawn.rng
    first, last = windows()
    data = first[rng.permutation(len(first))[: drawn.amount(CALIBRATION, 2)]]
    held_out = last[rng.permutation(len(last))[: drawn.amount(HELD_OUT)]]
    return calibrate(language_model(min(1.0, drawn.scale)), data, held_out, needs, every)


def calibrate(
    model: nn.Module,
    data: torch.Tensor,
    held_out: torch.Tensor,
    needs: frozenset[type[Moment]],
    every: int,
) -> Calibrated:
    """Return the model with what it makes of windows, and the layers of each so many-th block."""
    layers = [layer for layer in find_layers(model) if block_of(layer) % every == 0]
    statistics = _statistics(model, layers, needs, data)
    networks = _networks(model, layers, data[0]) if InputRows in needs else []
    weights = [layer.matrix().clone() for layer in layers]
    return Calibrated(model, layers, weights, statistics, networks, held_out)


def _networks(model: nn.Module, layers: Sequence[Layer], window: torch.Tensor) -> list[FeedForward]:
    """Return the feed-forward networks among the layers."""
    samples = [{"input_ids": window[None]}]
    stream = Stream(InMemory(model), find_units(model, layers), samples)
    return [network for visit in stream.visits() for network in find_feed_forward(visit)]


def _statistics(
    model: nn.Module,
    layers: Sequence[Layer],
    needs: frozenset[type[Moment]],
    data: torch.Tensor,
) -> dict[str, Statistics]:
    """Return the moments of every layer over windows."""

    def run() -> None:
        for window in data:
            model.get_decoder()(input_ids=window[None], use_cache=False)

    statistics = collect_inputs(model, layers, forward(needs), run)
    if slopes := perturbed(needs):
        units, source = find_units(model, layers), InMemory(model)
        samples = [{"input_ids": window[None]} for window in data[:MOVED]]
        for name, found in collect_slopes(source, units, slopes, samples, default_loss).items():
            statistics[name].adopt_gradients(found)
    return statistics


@functools.lru_cache(maxsize=1)
def language_model(share: float) -> nn.Module:
    """Return SmolLM2 in float32, or the first `share` of its blocks (at least one).

    Of very small shares, a narrow block of random weights: it shows that a study runs, in a
    tenth of the time.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(smollm2())
    config.num_hidden_layers = max(1, round(share * config.num_hidden_layers))
    if share < _REAL:
        config.update(_NARROW)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the blocks left out are no news
    try:
        return AutoModelForCausalLM.from_pretrained(
            smollm2(), config=config, dtype=torch.float32
        ).eval()
    finally:
        logging.set_verbosity(verbosity)


@functools.cache
def windows() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the windows to calibrate on and to be measured on."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    first, last = (
        token_windows(tokenizer, state_of_the_union(*years), length=LENGTH)
        for years in (_FIRST_YEARS, _LAST_YEARS)
    )
    return first, last
