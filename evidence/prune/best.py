"""The best recipe against SparseGPT: the whole of SmolLM2, each pruned as a user would."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import thresher as th
from thresher.core.evidence import Experiment
from thresher.prune import Recipe
from thresher.prune.best import Best
from thresher.prune.sparsegpt import SparseGPT

from .._one_shot import CALIBRATION, HELD_OUT, LENGTH, language_model, log_perplexity, windows
from .._study import Draw, Judged, Study, ahead, means


@dataclass(frozen=True)
class _Problem:
    """A model, what to calibrate and to measure on, and the share of weights to keep."""

    model: Any
    data: torch.Tensor
    held_out: torch.Tensor
    density: float


def _draw(density: float, drawn: Draw) -> _Problem:
    rng = drawn.rng
    first, last = windows()
    data = first[rng.permutation(len(first))[: drawn.amount(CALIBRATION, 2)]]
    held_out = last[rng.permutation(len(last))[: drawn.amount(HELD_OUT)]]
    return _Problem(language_model(min(1.0, drawn.scale)), data, held_out, density)


def _pruned(recipe: Recipe) -> Callable[[_Problem], float]:
    """Return the method that prunes a copy of the model, block by block."""

    # Not from shared statistics: both of this recipe's streams need the pruned blocks' outputs.
    def run(problem: _Problem) -> float:
        model = copy.deepcopy(problem.model)
        th.prune(model, recipe.with_options(density=problem.density), problem.data, progress=False)
        return log_perplexity(model, problem.held_out)

    return run


experiment = Experiment(
    method=Best.card.name,
    claim="At 50 % a language model pruned towards the dense model's outputs, with tokens weighted "
    "by attention and supports searched over whole layers, has a lower perplexity than by "
    "SparseGPT on the same windows.",
    baseline="SparseGPT on the same windows",
    run=Judged(
        study=Study(
            over=("cut",),
            settings={"50 %": 0.5},
            draw=_draw,
            methods={"best": _pruned(Best()), "SparseGPT": _pruned(SparseGPT())},
            measures={"log_perplexity": lambda answer, _: answer},
            workers=2,
        ),
        rule=ahead("log_perplexity", "best", "SparseGPT"),
        view=means("log_perplexity", "Perplexity after one-shot pruning", "perplexity", True),
        against={"best": ("SparseGPT",)},
        note="Slacks are differences of log-perplexity. SmolLM2-135M-Instruct, calibrated on "
        f"{CALIBRATION} windows of {LENGTH} tokens of State of the Union addresses and measured on "
        f"{HELD_OUT} windows of later ones, others in every draw. More windows, 2:4 and 70 %, "
        "another genre, and the recipe without each of its parts are in the benchmark of quality. "
        "Scales below 1 run the first blocks of the model alone and say nothing of the claim.",
    ),
    # Each prunes 30 blocks twice: a third draw would take more than three minutes.
    seeds=(0, 1),
)
