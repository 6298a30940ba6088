"""The best recipe against SparseGPT: how far the first blocks of SmolLM2 stray from the dense."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import thresher as th
from thresher.assets import smollm2
from thresher.assets.texts import gutenberg
from thresher.core.evidence import Earlier, Experiment
from thresher.parts.calibration import token_windows
from thresher.prune import Recipe
from thresher.prune.best import Best
from thresher.prune.sparsegpt import SparseGPT

from .._one_shot import LENGTH, language_model, windows
from .._study import Draw, Judged, Study, ahead, every, means, reported

#: Of the model's 30 blocks, so that a run takes minutes.
_BLOCKS = 4
_CALIBRATION, _HELD_OUT = 32, 8
_TEXTS = ("addresses", "Emma")


@dataclass(frozen=True)
class _Problem:
    """The first blocks of a model, what to calibrate and to measure on, and what is cut."""

    model: nn.Module
    data: torch.Tensor
    held_out: Mapping[str, torch.Tensor]
    cut: Mapping[str, Any]


def _draw(cut: Mapping[str, Any], drawn: Draw) -> _Problem:
    rng = drawn.rng

    def some(of: torch.Tensor, count: int) -> torch.Tensor:
        return of[rng.permutation(len(of))[: drawn.amount(count, 2)]]

    first, last = windows()
    data = some(first, _CALIBRATION)
    held_out = {"addresses": some(last, _HELD_OUT), "Emma": some(_emma(), _HELD_OUT)}
    return _Problem(language_model(min(1.0, drawn.scale) * _BLOCKS / 30), data, held_out, cut)


@functools.cache
def _emma() -> torch.Tensor:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    return token_windows(tokenizer, gutenberg("emma"), length=LENGTH)


def _pruned(recipe: Recipe) -> Callable[[_Problem], dict[str, float]]:
    """Return the method that prunes a copy as a user would, and measures what it gives."""

    # Not from shared statistics: both of this recipe's streams need the pruned blocks' outputs.
    def run(problem: _Problem) -> dict[str, float]:
        model = copy.deepcopy(problem.model)
        th.prune(model, recipe.with_options(**problem.cut), problem.data, progress=False)
        texts = problem.held_out.items()
        return {name: _log_distance(problem.model, model, of) for name, of in texts}

    return run


@torch.no_grad()
def _log_distance(dense: nn.Module, pruned: nn.Module, data: torch.Tensor) -> float:
    """Return the log of the squared distance of hidden states, relative to the dense one's.

    A mean over tokens of each one's own ratio: squares of the first token alone are thousands of
    times as large as all others' together.
    """
    ratios = []
    for window in data:
        right, wrong = (_states(model, window) for model in (dense, pruned))
        ratios.append((wrong - right).square().sum(-1) / right.square().sum(-1))
    return math.log(torch.cat(ratios).mean())


def _states(model: nn.Module, window: torch.Tensor) -> torch.Tensor:
    """Return what the last block gives, of shape (tokens, width), before the final norm."""
    decoder, found = model.get_decoder(), []
    handle = decoder.norm.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0][0]))
    try:
        decoder(input_ids=window[None], use_cache=False)
    finally:
        handle.remove()
    return found[0]


experiment = Experiment(
    method=Best.card.name,
    claim="At 50 % and at 2:4, blocks pruned towards the dense model's outputs, with tokens "
    "weighted by attention and supports searched over whole layers, give hidden states nearer to "
    "the dense model's than SparseGPT's on the same windows, in domain and on another genre.",
    baseline="SparseGPT on the same windows",
    run=Judged(
        study=Study(
            over=("cut",),
            settings={"50 %": {"density": 0.5}, "2:4": {"pattern": "2:4"}},
            draw=_draw,
            methods={"best": _pruned(Best()), "SparseGPT": _pruned(SparseGPT())},
            measures=reported(*_TEXTS),
            workers=2,
        ),
        rule=every(*(ahead(text, "best", "SparseGPT") for text in _TEXTS)),
        view=means(
            "addresses", "Squared distance of hidden states, on addresses", "of the dense", True
        ),
        against={"best": ("SparseGPT",)},
        note="Slacks are differences of log squared distance, relative to the dense hidden states "
        f"token by token, after the first {_BLOCKS} of 30 blocks of SmolLM2-135M-Instruct, "
        f"calibrated on {_CALIBRATION} windows of {LENGTH} tokens of State of the Union addresses "
        f"and measured on {_HELD_OUT} of later ones and {_HELD_OUT} of Emma, others in every draw. "
        "Perplexities of the whole model, 70 %, and the recipe without each of its parts are in "
        "the benchmark of quality.",
    ),
    seeds=(0, 1, 2),
    earlier=(
        Earlier(
            rule="the same after the first five blocks",
            reproduced=True,
            margin=0.1116,
            why="it took 343 s beside other work, and would take over three minutes without",
        ),
    ),
)
