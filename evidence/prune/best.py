"""Best beside SparseGPT, calibrated on the same windows: perplexity, and that of another genre."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thresher.core.evidence import Experiment
from thresher.prune import Recipe
from thresher.prune.best import Best
from thresher.prune.memory import prune
from thresher.prune.sparsegpt import SparseGPT

from .._one_shot import (
    CALIBRATION,
    HELD_OUT,
    LENGTH,
    language_model,
    log_perplexity,
    novel,
    windows,
)
from .._study import Draw, Found, Judged, Slacks, Study, ahead, means

_EVERY = 10
_METHODS = {"best": Best(), "SparseGPT": SparseGPT()}
_MEASURES = ("log_perplexity", "log_perplexity_of_a_novel")


@dataclass(frozen=True)
class _Problem:
    cut: Mapping[str, Any]
    model: nn.Module
    calibration: torch.Tensor
    held_out: torch.Tensor
    novel: torch.Tensor


def _draw(cut: Mapping[str, Any], drawn: Draw) -> _Problem:
    first, last = (some[drawn.rng.permutation(len(some))] for some in windows())
    other = novel()[drawn.rng.permutation(len(novel()))]
    return _Problem(
        cut,
        language_model(min(1.0, drawn.scale)),
        first[: drawn.amount(CALIBRATION, 2)],
        last[: drawn.amount(HELD_OUT)],
        other[: drawn.amount(HELD_OUT)],
    )


def _prune(recipe: Recipe) -> Callable[[_Problem], nn.Module]:
    """Return the method that prunes by a recipe in the stream, as users do."""

    def method(problem: _Problem) -> nn.Module:
        model = copy.deepcopy(problem.model)
        others = [b for b in range(model.config.num_hidden_layers) if b % _EVERY]
        prune(
            model,
            recipe.with_options(**problem.cut),
            problem.calibration,
            exclude=[f"*.layers.{block}.*" for block in others],
            progress=False,
        )
        return model

    return method


def _measure(windows_of: str) -> Callable[[nn.Module, _Problem], float]:
    return lambda model, problem: log_perplexity(model, getattr(problem, windows_of))


def _rule(found: Found) -> Slacks:
    return {
        f"{measure}: {part}": slack
        for measure in _MEASURES
        for part, slack in ahead(measure, "best", "SparseGPT")(found).items()
    }


experiment = Experiment(
    method=Best.card.name,
    claim="At 50 % sparsity and at 2:4, from the same windows, best leaves a lower perplexity than "
    "SparseGPT, on the genre of the windows and on another one.",
    baseline="SparseGPT, each block calibrated on its pruned predecessors too",
    run=Judged(
        study=Study(
            over=("cut",),
            settings={"50 %": {"density": 0.5}, "2:4": {"pattern": "2:4"}},
            draw=_draw,
            methods={name: _prune(recipe) for name, recipe in _METHODS.items()}
            | {"dense": lambda problem: problem.model},
            measures={
                _MEASURES[0]: _measure("held_out"),
                _MEASURES[1]: _measure("novel"),
            },
            workers=2,
        ),
        rule=_rule,
        view=means("log_perplexity", "Perplexity after one-shot pruning", "perplexity", True),
        against={"best": ("SparseGPT",)},
        note=f"Slacks are differences of log-perplexity. SmolLM2-135M-Instruct, of which every "
        f"{_EVERY}th block is pruned, so that a run takes minutes; calibrated on {CALIBRATION} "
        f"windows of {LENGTH} tokens of State of the Union addresses, measured on {HELD_OUT} "
        "windows of later ones and of Emma, others in every draw. The strengths of the method's "
        "parts were chosen on the same texts, in benchmarks with all blocks. Scales below 1 run "
        "the first blocks of the model alone and say nothing of the claim.",
    ),
    seeds=(0, 1, 2),
)
