"""What the evidence on smaller models shares: a character model, cut by one recipe or another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

import thresher as th
from thresher.parts import scores
from thresher.parts.rankings import ByScore
from thresher.parts.spreads import Incremental
from thresher.prune.unit_recipe import UnitRecipe

from .. import _models as models
from .._study import Draw

#: The same share of every group, by magnitude times input norm, with nothing to make up for it.
WANDA = UnitRecipe(ByScore(scores.Magnitude() * scores.InputNorm()), Incremental(first=1.0))
#: Likewise by magnitude alone.
MAGNITUDE = UnitRecipe(ByScore(scores.Magnitude() ** 2), Incremental(first=1.0))


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
    return Problem(dense, train[: drawn.amount(64)], removed, drawn.scale)


def smaller(recipe: UnitRecipe) -> Callable[[Problem], nn.Module]:
    """Return a method of a study."""

    def cut(problem: Problem) -> nn.Module:
        how = replace(recipe, density=1 - problem.removed)
        made: nn.Module = th.prune(problem.dense, how, problem.data, progress=False)
        return made

    return cut


def log_perplexity(model: nn.Module, problem: Problem) -> float:
    """Return the mean loss in nats per held-out character."""
    return models.log_perplexity(model, problem.scale)
