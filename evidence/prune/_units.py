"""What the evidence on smaller models shares: a character model, cut by one recipe or another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import thresher as th
from thresher.parts import scores
from thresher.parts.coverage import find_layers
from thresher.parts.rankings import AllByScore, ByScore
from thresher.parts.spreads import Incremental
from thresher.parts.statistics import Statistics
from thresher.prune.unit_recipe import UnitRecipe

from .. import _models as models
from .._study import Draw

#: The same share of every group, by magnitude times input norm, with nothing to make up for it.
WANDA = UnitRecipe(ByScore(scores.Magnitude() * scores.InputNorm()), Incremental(first=1.0))
#: What the model and the data of the language problem are, for the note of a study.
MODEL = (
    "The model is a Llama of 0.15 M weights on characters of Python's documentation, trained anew "
    "for every seed and calibrated on 64 windows of 128 of them."
)


@dataclass(frozen=True)
class Problem:
    """A trained model, data to calibrate on, and the share of weights to remove."""

    dense: nn.Module
    data: Any
    removed: float
    scale: float


def language_problem(removed: float, drawn: Draw) -> Problem:
    """Return a character model that was trained for the seed that is drawn."""
    train = models.characters()[0]
    dense = models.language_model(drawn.seed, drawn.scale)
    return Problem(dense, train[: drawn.amount(64, 4)], removed, drawn.scale)


def smaller(recipe: UnitRecipe) -> Callable[[Problem], nn.Module]:
    """Return a method of a study."""

    def cut(problem: Problem) -> nn.Module:
        how = replace(recipe, density=1 - problem.removed)
        made: nn.Module = th.prune(problem.dense, how, problem.data, progress=False)
        return made

    return cut


@dataclass(frozen=True)
class _FirstOrder(scores.Score):
    """What the loss changes by if a weight goes, to first order."""

    gradients: Mapping[str, torch.Tensor]

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        return (weight * self.gradients[statistics.name]).abs()


def llm_pruner(problem: Problem) -> nn.Module:
    """Remove the units whose weights matter least to first order, the same share everywhere.

    The rule of LLM-Pruner (Ma et al., 2023) without the training that follows it: the sum over
    all weights of a unit of their size times the loss's gradient.
    """
    model: Any = problem.dense
    model.zero_grad()
    model(input_ids=problem.data, labels=problem.data).loss.backward()
    gradients = {
        layer.name: layer.matrix(layer.part_of(getattr(layer.module, layer.attribute).grad))
        for layer in find_layers(model)
    }
    model.zero_grad()
    return smaller(UnitRecipe(AllByScore(_FirstOrder(gradients)), Incremental(first=1.0)))(problem)


def log_perplexity(model: nn.Module, problem: Problem) -> float:
    """Return the mean loss in nats per held-out character."""
    return models.log_perplexity(model, problem.scale)
