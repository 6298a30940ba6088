"""OBSPA against SPA with magnitude and at random, on a residual network of digits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import thresher as th
from thresher.core.evidence import Experiment
from thresher.parts.rankings import ByScore
from thresher.parts.scores import Random
from thresher.prune.spa import OBSPA, SPA
from thresher.prune.unit_recipe import UnitRecipe

from .. import _models as models
from .._study import Draw, Judged, Study, ahead, means


@dataclass(frozen=True)
class _Problem:
    dense: nn.Module
    data: Any
    removed: float


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.inner(x))


@functools.lru_cache(maxsize=1)
def _trained(drawn: Draw) -> nn.Module:
    torch.manual_seed(drawn.seed)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        _Residual(32),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        _Residual(64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    models.train_classifier(model.train(), drawn.seed, drawn.amount(20))
    return model.eval()


def _problem(removed: float, drawn: Draw) -> _Problem:
    images = models.digits()[0][: drawn.amount(512)]
    return _Problem(_trained(drawn), list(images.split(128)), removed)


def _smaller(recipe: UnitRecipe) -> Callable[[_Problem], nn.Module]:
    def cut(problem: _Problem) -> nn.Module:
        how = recipe.with_density(1 - problem.removed)
        made: nn.Module = th.prune(problem.dense, how, problem.data, progress=False)
        return made

    return cut


experiment = Experiment(
    method=OBSPA.card.name,
    claim="Without fine-tuning, a residual network of which 30 % or 50 % of the weights are "
    "removed in coupled channels is more accurate where those go that others can make up for, and "
    "do, than by magnitude or at random. (The paper's ImageNet networks, its rival DFPC, and "
    "calibration without data, are not rerun.)",
    baseline="coupled channels removed by magnitude (SPA) and at random",
    run=Judged(
        study=Study(
            over=("removed",),
            settings={removed: removed for removed in (0.3, 0.5)},
            draw=_problem,
            methods={
                "OBSPA": _smaller(OBSPA()),
                "magnitude": _smaller(SPA()),
                "random": _smaller(SPA(ranking=ByScore(Random()))),
            },
            measures={"wrong": lambda model, _: 100 * (1 - models.accuracy(model))},
        ),
        rule=ahead("wrong", "OBSPA", "magnitude", "random"),
        view=means("wrong", "Test digits classified wrongly", "wrong (%)"),
        against={"OBSPA": ("magnitude", "random")},
        note="Slacks are points of accuracy. The network has two residual blocks of 32 and 64 "
        "channels; its images are 8 x 8.",
    ),
    seeds=(0, 1, 2, 3, 4),
)
